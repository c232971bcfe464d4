// SPDX-License-Identifier: Apache-2.0

// Protogen writes the Go code of the project's .proto files beside them.
//
// It needs no protoc: protocompile parses the files, and the generator of protoc-gen-go, at the version go.mod names, writes the
// code. Run it from the project's root as
//
//	go run -C .ci/tools ./protogen
//
// The output depends on the .proto files and on go.mod alone.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"golang.org/x/mod/modfile"
	"google.golang.org/protobuf/cmd/protoc-gen-go/internal_gengo"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// protoDirs are the directories, below the project's root, that hold .proto files.
var protoDirs = []string{"agentproto/agentpb"}

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stderr))
}

func run(ctx context.Context, args []string, stderr io.Writer) int {
	flags := flag.NewFlagSet("protogen", flag.ContinueOnError)
	flags.SetOutput(stderr)
	root := flags.String("root", filepath.Join("..", ".."), "the project's `directory`")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if err := generate(ctx, *root); err != nil {
		fmt.Fprintln(stderr, "protogen:", err)
		return 1
	}
	return 0
}

// generate compiles the .proto files of root and replaces the .pb.go files beside them; one whose .proto is gone is removed.
func generate(ctx context.Context, root string) error {
	sources, err := list(root, ".proto")
	if err != nil {
		return err
	}
	request, err := compile(ctx, root, sources)
	if err != nil {
		return err
	}
	plugin, err := protogen.Options{}.New(request)
	if err != nil {
		return fmt.Errorf("load descriptors: %w", err)
	}
	for _, file := range plugin.Files {
		if file.Generate {
			internal_gengo.GenerateFile(plugin, file)
		}
	}
	response := plugin.Response()
	if response.Error != nil {
		return fmt.Errorf("generate: %s", response.GetError())
	}
	return write(root, response.File)
}

// list returns the files of protoDirs that end in suffix, as slash paths relative to root, sorted.
func list(root, suffix string) ([]string, error) {
	var names []string
	for _, dir := range protoDirs {
		entries, err := os.ReadDir(filepath.Join(root, dir))
		if err != nil {
			return nil, fmt.Errorf("list sources: %w", err)
		}
		for _, entry := range entries {
			if strings.HasSuffix(entry.Name(), suffix) {
				names = append(names, dir+"/"+entry.Name())
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// compile makes the request that protoc would send to its plugin.
func compile(ctx context.Context, root string, sources []string) (*pluginpb.CodeGeneratorRequest, error) {
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{root}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := compiler.Compile(ctx, sources...)
	if err != nil {
		return nil, fmt.Errorf("compile: %w", err)
	}
	module, err := modulePath(root)
	if err != nil {
		return nil, err
	}
	// The import path comes from go.mod and not from an option of the files: it would be in the descriptors, and so in the code
	// of every module that this one is renamed to.
	parameter := "paths=source_relative"
	for _, source := range sources {
		parameter += ",M" + source + "=" + path.Join(module, path.Dir(source))
	}
	request := &pluginpb.CodeGeneratorRequest{FileToGenerate: sources, Parameter: &parameter}
	seen := make(map[string]bool)
	for _, file := range files {
		request.ProtoFile = appendFile(request.ProtoFile, seen, file)
	}
	return request, nil
}

// modulePath reads the module's path of root's go.mod.
func modulePath(root string) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return "", fmt.Errorf("find module: %w", err)
	}
	module := modfile.ModulePath(text)
	if module == "" {
		return "", errors.New("find module: go.mod names none")
	}
	return module, nil
}

// appendFile appends file to list behind all that it imports, each once.
func appendFile(list []*descriptorpb.FileDescriptorProto, seen map[string]bool, file protoreflect.FileDescriptor) []*descriptorpb.FileDescriptorProto {
	if seen[file.Path()] {
		return list
	}
	seen[file.Path()] = true
	imports := file.Imports()
	for i := range imports.Len() {
		list = appendFile(list, seen, imports.Get(i).FileDescriptor)
	}
	return append(list, protodesc.ToFileDescriptorProto(file))
}

// write stores the generated files and removes those that are no longer made.
func write(root string, files []*pluginpb.CodeGeneratorResponse_File) error {
	stale, err := list(root, ".pb.go")
	if err != nil {
		return err
	}
	for _, file := range files {
		name := filepath.Join(root, filepath.FromSlash(file.GetName()))
		if err := os.WriteFile(name, []byte(file.GetContent()), 0o644); err != nil {
			return fmt.Errorf("write generated code: %w", err)
		}
		stale = slices.DeleteFunc(stale, func(old string) bool { return old == file.GetName() })
	}
	for _, name := range stale {
		if err := os.Remove(filepath.Join(root, filepath.FromSlash(name))); err != nil {
			return fmt.Errorf("remove stale code: %w", err)
		}
	}
	return nil
}
