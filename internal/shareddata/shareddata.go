// SPDX-License-Identifier: Apache-2.0

// Package shareddata finds what tests compare with and is no part of the project.
package shareddata

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Dir is [Folder] if that is there. If not, the test is skipped, or fails where CI=true.
func Dir(t testing.TB, name string) string {
	t.Helper()
	dir := Folder(t, name)
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("no test data at %s; set %s", dir, variable(name))
	}
	t.Skipf("SKIPPED: no test data at %s; set %s", dir, variable(name))
	return ""
}

// Folder is where test data of a name belongs, such as "corpus": in what the environment variable PORTCULLIS_CORPUS names, else in
// ../shared beside the project, or one directory further up, as in worktrees.
func Folder(t testing.TB, name string) string {
	t.Helper()
	if dir := os.Getenv(variable(name)); dir != "" {
		return dir
	}
	root := moduleRoot(t)
	beside := filepath.Join(root, "..", "shared", name)
	if _, err := os.Stat(beside); err != nil {
		above := filepath.Join(root, "..", "..", "shared", name)
		if _, err := os.Stat(above); err == nil {
			return above
		}
	}
	return beside
}

func variable(name string) string { return "PORTCULLIS_" + strings.ToUpper(name) }

func moduleRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the package")
		}
		dir = parent
	}
}
