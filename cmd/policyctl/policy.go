// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"

	"portcullis/engine"
	"portcullis/internal/bounded"
	"portcullis/rules"
)

// maxText bounds a policy, a document or a manifest, in bytes.
const maxText = 16 << 20

// loadEngine compiles the policy at path and starts an engine on it. What is wrong with the file is the user's mistake.
func loadEngine(ctx context.Context, path string, stdin io.Reader, opts engine.Options) (*engine.Engine, error) {
	p, err := loadPolicy(ctx, path, stdin)
	if err != nil {
		return nil, err
	}
	return engine.New(p, opts), nil
}

// loadPolicy compiles a policy file, or the policy in a manifest's annotation; "-" is standard input.
func loadPolicy(ctx context.Context, path string, stdin io.Reader) (*engine.Policy, error) {
	name, text, err := readPolicy(path, stdin)
	if err != nil {
		return nil, err
	}
	return compilePolicy(ctx, name, text)
}

// readPolicy reads the text of a policy, with the name that messages give it.
func readPolicy(path string, stdin io.Reader) (name string, text []byte, err error) {
	if path == "" {
		return "", nil, usageError(errors.New("--policy is required"))
	}
	name, text, err = readText(path, stdin)
	if err != nil {
		return "", nil, fmt.Errorf("read policy: %w", err)
	}
	annotated, found, err := annotationOf(text)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", name, err)
	}
	if !found {
		return name, text, nil
	}
	b, err := annotated.read(name, "")
	return name, b.policy, err
}

func compilePolicy(ctx context.Context, name string, text []byte) (*engine.Policy, error) {
	compiler, err := engine.NewCompiler(engine.CompilerOptions{HeldRules: rules.Held()})
	if err != nil {
		return nil, err
	}
	p, err := compiler.Compile(ctx, text)
	if err != nil && !hasPackage.Match(text) {
		return nil, fmt.Errorf("%s is no policy: it does not begin with a package; genpolicy -r prints the policy of a manifest", name)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// readText reads a file, or standard input for "-", with the name that messages give it.
func readText(path string, stdin io.Reader) (name string, text []byte, err error) {
	if path == "-" {
		text, err = bounded.ReadAll(stdin, maxText)
		return "standard input", text, err
	}
	text, err = bounded.ReadFile(path, maxText)
	return path, text, err
}

// oneStdin refuses a command line that names standard input twice: the second would find it empty.
func oneStdin(paths ...string) error {
	n := 0
	for _, path := range paths {
		if path == "-" {
			n++
		}
	}
	if n > 1 {
		return usageError(errors.New("standard input is named twice"))
	}
	return nil
}

// oneStdinBeside is oneStdin for a policy and the files of a verb that reads standard input where none is named.
func oneStdinBeside(policy string, files []string) error {
	if len(files) == 0 {
		files = []string{"-"}
	}
	return oneStdin(append([]string{policy}, files...)...)
}

// hasPackage finds what every Rego text has.
var hasPackage = regexp.MustCompile(`(?m)^[ \t]*package[ \t]`)

// openInput opens the FILE argument of a verb, or stdin when there is none or it is "-".
func openInput(args []string, stdin io.Reader) (io.ReadCloser, error) {
	if len(args) == 0 && isTerminal(stdin) {
		return nil, usageError(errors.New("FILE is missing; \"-\" reads from the terminal"))
	}
	if len(args) == 0 || args[0] == "-" {
		return io.NopCloser(stdin), nil
	}
	return os.Open(args[0])
}
