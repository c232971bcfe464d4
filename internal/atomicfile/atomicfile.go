// SPDX-License-Identifier: Apache-2.0

// Package atomicfile replaces files whole: who reads one finds the old content or the new, also after a crash.
//
// It is renameio with the choices that are the same wherever a file is replaced here: the temporary file is a neighbour of the
// one it replaces, not in a directory that the environment names, and the mode is the caller's, not the old file's.
package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// Write replaces the file at path, or makes it, with content and mode perm. It does not follow a link.
func Write(path string, content []byte, perm fs.FileMode) error {
	f, err := New(path, perm)
	if err != nil {
		return err
	}
	if _, err := f.Write(content); err != nil {
		return errors.Join(err, f.Cleanup())
	}
	return Close(f)
}

// New makes the temporary file of one that is to be replaced. [Close] puts it in its place; its Cleanup takes it away.
func New(path string, perm fs.FileMode) (*renameio.PendingFile, error) {
	return renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(perm))
}

// Close puts f in the place it was made for, or takes it away if that fails.
func Close(f *renameio.PendingFile) error {
	if err := f.CloseAtomicallyReplace(); err != nil {
		return errors.Join(err, f.Cleanup())
	}
	return nil
}

// RemoveLeftovers removes the temporary files that a process which was killed left beside path. Nobody else may be writing
// there.
func RemoveLeftovers(path string) error {
	leftovers, err := filepath.Glob(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"[0-9]*"))
	for _, name := range leftovers {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}
