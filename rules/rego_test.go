// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/format"
	"github.com/open-policy-agent/opa/v1/tester"
)

// TestRego runs the unit tests written in Rego beside the rules.
func TestRego(t *testing.T) {
	modules := map[string]*ast.Module{}
	for _, path := range regoFiles(t) {
		if path == "upstream.rego" {
			continue
		}
		module, err := ast.ParseModuleWithOpts(path, read(t, path), ast.ParserOptions{RegoVersion: ast.RegoV0})
		if err != nil {
			t.Fatal(err)
		}
		modules[path] = module
	}
	results, err := tester.NewRunner().SetModules(modules).RunTests(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for r := range results {
		if ran++; !r.Pass() {
			t.Errorf("%s: %s: %v", r.Location, r.Name, r.Error)
		}
	}
	if ran < 8 {
		t.Errorf("only %d Rego tests ran", ran)
	}
}

func TestRegoIsFormatted(t *testing.T) {
	for _, path := range append(regoFiles(t), "default/allow-all.rego", "default/allow-all-except-exec.rego", "default/deny-all-but-setpolicy.rego") {
		want, err := format.SourceWithOpts(path, []byte(read(t, path)), format.Opts{RegoVersion: ast.RegoV0CompatV1})
		if err != nil || string(want) != read(t, path) {
			t.Errorf("%s is not as opa fmt writes it (%v)", path, err)
		}
	}
}

func regoFiles(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("*.rego")
	if err != nil || len(paths) < 10 {
		t.Fatalf("found %v (%v)", paths, err)
	}
	slices.Sort(paths)
	return paths
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
