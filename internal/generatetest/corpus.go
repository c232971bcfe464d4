// SPDX-License-Identifier: Apache-2.0

package generatetest

import (
	"os"
	"path/filepath"
	"testing"

	"portcullis/internal/shareddata"
)

// EachPod calls do with each manifest of the corpus of Kata 4.1, with its name there and the images of all. There is at least one.
func EachPod(t testing.TB, do func(name, path, images string)) {
	t.Helper()
	dir := filepath.Join(shareddata.Dir(t, "corpus"), "kata-4.1")
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
