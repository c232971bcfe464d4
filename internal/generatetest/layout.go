// SPDX-License-Identifier: Apache-2.0

package generatetest

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"

	"portcullis/images"
	"portcullis/images/layout"
)

// Layout opens the OCI layout in an archive, in a folder of its own there.
func Layout(t testing.TB, archive string) images.Store {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("tar", "xzf", archive, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	index, err := filepath.Glob(filepath.Join(dir, "*", "index.json"))
	if err != nil || len(index) != 1 {
		t.Fatalf("%s holds no layout (%v)", archive, err)
	}
	store, err := layout.Open(filepath.Dir(index[0]))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// Stored finds images in one store.
type Stored struct{ Store images.Store }

// Image implements generate.Images.
func (s Stored) Image(ctx context.Context, reference string) (*images.Image, error) {
	ref, err := images.ParseReference(reference)
	if err != nil {
		return nil, err
	}
	return images.Open(ctx, s.Store, ref, images.Options{})
}
