// SPDX-License-Identifier: Apache-2.0

// Package opatest finds the real OPA that tests and benchmarks compare with.
package opatest

import (
	"os"
	"path/filepath"
	"testing"
)

// Binary is the path of the program that PORTCULLIS_OPA names, else of the one that `make bin/opa` builds, seen from a package two
// directories below the module's root. Where there is none the test is skipped, or fails if CI is true.
func Binary(t testing.TB) string {
	t.Helper()
	path := os.Getenv("PORTCULLIS_OPA")
	if path == "" {
		path = filepath.Join("..", "..", "bin", "opa")
	}
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("no OPA at %s; make bin/opa", path)
	}
	t.Skipf("SKIPPED: no OPA at %s; make bin/opa, or set PORTCULLIS_OPA", path)
	return ""
}
