// SPDX-License-Identifier: Apache-2.0

package generatetest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Corpus returns the folder of shared manifests and requests, or skips the test.
func Corpus(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("PORTCULLIS_CORPUS")
	if dir == "" {
		dir = filepath.Join(moduleRoot(t), "..", "shared", "corpus")
		if _, err := os.Stat(dir); err != nil {
			dir = filepath.Join(moduleRoot(t), "..", "..", "shared", "corpus")
		}
	}
	if _, err := os.Stat(dir); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("the shared corpus is not at %s; set PORTCULLIS_CORPUS", dir)
		}
		fmt.Fprintf(os.Stderr, "SKIPPED %s: the shared corpus is not at %s\n", t.Name(), dir)
		t.Skip("no corpus")
	}
	return dir
}

// EachPod calls do with each manifest of the corpus of Kata 4.1, with its name there and the images of all. There is at least one.
func EachPod(t testing.TB, do func(name, path, images string)) {
	t.Helper()
	dir := filepath.Join(Corpus(t), "kata-4.1")
	count := 0
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.Name() != "pod.yaml" {
			return err
		}
		count++
		name, err := filepath.Rel(dir, filepath.Dir(path))
		do(name, path, filepath.Join(dir, "images.json"))
		return err
	})
	if err != nil || count == 0 {
		t.Fatalf("%d manifests, %v", count, err)
	}
}

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
		if parent := filepath.Dir(dir); parent != dir {
			dir = parent
			continue
		}
		t.Fatal("no go.mod above the package")
	}
}
