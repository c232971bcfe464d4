// SPDX-License-Identifier: Apache-2.0

package atomicfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"portcullis/internal/atomicfile"
)

func TestAFileIsReplacedWithTheModeThatIsAskedFor(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", filepath.Join(dir, "absent")) // the environment does not choose where secrets are written
	path := filepath.Join(dir, "file")
	for _, content := range []string{"first", "second"} {
		if err := os.WriteFile(path, nil, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := atomicfile.Write(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		info, statErr := os.Lstat(path)
		if err := errors.Join(err, statErr); err != nil || string(got) != content || info.Mode() != 0o600 {
			t.Errorf("got %q, mode %v, %v", got, info.Mode(), err)
		}
	}
	wantFiles(t, dir, "file")
}

func TestALinkIsReplacedAndNotFollowed(t *testing.T) {
	dir := t.TempDir()
	other, path := filepath.Join(dir, "other"), filepath.Join(dir, "file")
	if err := errors.Join(os.WriteFile(other, []byte("kept"), 0o600), os.Symlink(other, path)); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(path, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(other); err != nil || string(got) != "kept" {
		t.Errorf("the link's target holds %q, %v", got, err)
	}
}

func TestWhatFailsLeavesTheOldFileAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.MkdirAll(filepath.Join(path, "full"), 0o700); err != nil { // a directory cannot be replaced by a file
		t.Fatal(err)
	}
	if err := atomicfile.Write(path, []byte("new"), 0o600); err == nil {
		t.Error("no error")
	}
	wantFiles(t, dir, "file")
}

func TestLeftoversOfAKilledProcessAreRemoved(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	f, err := atomicfile.New(path, 0o600)
	if err := errors.Join(err, f.Close(), os.WriteFile(filepath.Join(dir, ".file.keep"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.RemoveLeftovers(path); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, ".file.keep")
}

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if len(got) != len(want) || got[0] != want[0] {
		t.Errorf("the directory holds %q, want %q", got, want)
	}
}
