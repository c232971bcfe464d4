// SPDX-License-Identifier: Apache-2.0

package project_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// step is a line of a chain of docs/architecture.md.
type step struct {
	line, depth int
	dir, name   string // of the function: "Type.Method" or "Function"
}

// The chains of docs/architecture.md are true: each function is there, and names, in the order of the page, what the page says that
// it calls. Calls through an interface are recognized by the method's name.
func TestArchitecture(t *testing.T) {
	for _, chain := range chains(t, "../../docs/architecture.md") {
		var above []step // the way from the chain's first line to the one before
		last := map[int]token.Pos{}
		for _, s := range chain {
			f := function(t, s.dir, s.name)
			if f == nil {
				t.Errorf("line %d: there is no %s in %s", s.line, s.name, s.dir)
				break
			}
			above = append(above[:min(s.depth, len(above))], s)
			if s.depth == 0 {
				continue
			}
			if len(above) <= s.depth {
				t.Fatalf("line %d is too far in", s.line)
			}
			caller := above[s.depth-1]
			_, called, _ := cutLast(s.name)
			from := function(t, caller.dir, caller.name)
			at := mention(from, called, last[caller.line])
			if at == token.NoPos {
				t.Errorf("line %d: %s.%s does not call %s, or before what stands above it", s.line, caller.dir, caller.name, called)
				continue
			}
			last[caller.line] = at
		}
	}
}

func cutLast(name string) (receiver, method string, isMethod bool) {
	if receiver, method, isMethod = strings.Cut(name, "."); !isMethod {
		return "", name, false
	}
	return receiver, method, true
}

// chains reads the code blocks that are marked as chains.
func chains(t *testing.T, file string) [][]step {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]step
	inside := false
	for i, line := range strings.Split(string(text), "\n") {
		switch {
		case line == "```chain":
			inside = true
			all = append(all, nil)
		case strings.HasPrefix(line, "```"):
			inside = false
		case inside:
			trimmed := strings.TrimLeft(line, " ")
			words := strings.Fields(trimmed)
			s := step{line: i + 1, depth: (len(line) - len(trimmed)) / 2, dir: "../../" + words[0], name: words[1]}
			all[len(all)-1] = append(all[len(all)-1], s)
		}
	}
	if len(all) < 4 {
		t.Fatalf("%d chains, want at least 4", len(all))
	}
	return all
}

var parsed = map[string][]*ast.File{}

// function is the declaration of "Type.Method" or "Function" in the package of a folder, or nil.
func function(t *testing.T, dir, name string) *ast.FuncDecl {
	t.Helper()
	receiver, method, _ := cutLast(name)
	for _, file := range sources(t, dir) {
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if ok && f.Name.Name == method && receiverOf(f) == receiver {
				return f
			}
		}
	}
	return nil
}

func sources(t *testing.T, dir string) []*ast.File {
	t.Helper()
	if files, ok := parsed[dir]; ok {
		return files
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		parsed[dir] = append(parsed[dir], file)
	}
	return parsed[dir]
}

func receiverOf(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return ""
	}
	expr := f.Recv.List[0].Type
	if star, ok := expr.(*ast.StarExpr); ok {
		expr = star.X
	}
	name, _ := expr.(*ast.Ident)
	return name.Name
}

// mention is where a function first calls another by its name, at or after from.
func mention(f *ast.FuncDecl, name string, from token.Pos) token.Pos {
	found := token.NoPos
	ast.Inspect(f.Body, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || found != token.NoPos {
			return found == token.NoPos
		}
		var called *ast.Ident
		switch fun := call.Fun.(type) {
		case *ast.Ident:
			called = fun
		case *ast.SelectorExpr:
			called = fun.Sel
		}
		if called != nil && called.Name == name && called.Pos() >= from {
			found = called.Pos()
		}
		return true
	})
	return found
}

// Each folder with code is under one of the packages that the page lists.
func TestArchitectureListsThePackages(t *testing.T) {
	text, err := os.ReadFile("../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, row := range regexp.MustCompile("(?m)^\\| `[^|]*\\|").FindAllString(string(text), -1) {
		for _, name := range regexp.MustCompile("`([a-z/0-9]+)`").FindAllStringSubmatch(row, -1) {
			listed = append(listed, name[1])
		}
	}
	err = filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel("../..", path)
		if err != nil || !d.IsDir() || rel == "." {
			return err
		}
		if strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "build" {
			return fs.SkipDir
		}
		files, err := filepath.Glob(filepath.Join(path, "*.go"))
		if err != nil || len(files) == 0 {
			return err
		}
		for _, name := range listed {
			below := name == "images" || name == "internal" || name == "cmd" || name == "rules/generate"
			if rel == name || below && strings.HasPrefix(rel, name+"/") {
				return nil
			}
		}
		t.Errorf("%s is not listed", rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
