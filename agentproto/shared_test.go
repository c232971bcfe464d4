// SPDX-License-Identifier: Apache-2.0

package agentproto

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// wireDir returns the directory of wire facts: PORTCULLIS_WIRE, or ../shared/wire from the project's root. Where it is absent the
// test is skipped, and fails when CI=true.
func wireDir(t testing.TB) string {
	t.Helper()
	return sharedDir(t, "PORTCULLIS_WIRE", "wire")
}

// corpusDir returns the directory of manifests and requests: PORTCULLIS_CORPUS, or
// ../shared/corpus from the project's root. Absence is handled as in wireDir.
func corpusDir(t testing.TB) string {
	t.Helper()
	return sharedDir(t, "PORTCULLIS_CORPUS", "corpus")
}

func sharedDir(t testing.TB, variable, name string) string {
	t.Helper()
	dir := os.Getenv(variable)
	if dir == "" {
		root, err := projectRoot()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(root, "..", "shared", name)
	}
	if _, err := os.Stat(dir); err != nil {
		const text = "no test data: %v; set %s"
		if os.Getenv("CI") == "true" {
			t.Fatalf(text, err, variable)
		}
		t.Skipf(text, err, variable)
	}
	return dir
}

// projectRoot is the nearest directory upwards that holds go.mod.
func projectRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = parent
	}
}
