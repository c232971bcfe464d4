// SPDX-License-Identifier: Apache-2.0

package initdata

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"portcullis/internal/bounded"
)

// Directory is where the guest components look for their configuration.
const Directory = "/run/confidential-containers/initdata"

// documentName is the copy of the whole document that the agent keeps beside the others.
const documentName = "initdata.toml"

// Install writes the document's aa.toml and cdh.toml into dir for the guest components, from memory. Call it after binding. dir
// becomes 0700, each file 0600; a file appears whole or not at all, and none is replaced: one that is there with the same bytes
// is left, one that differs is ErrCopy. Files that the document does not have are not written, and are ErrCopy if they are there.
func (d *Document) Install(dir string) error {
	root, err := openPrivate(dir)
	if err != nil {
		return fmt.Errorf("install initdata: %w", err)
	}
	defer root.Close()
	for _, name := range []string{AAKey, CDHKey} {
		value, ok := d.data[name]
		if !ok {
			continue
		}
		err := publish(root, name, value)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("install initdata: %w", err)
		}
	}
	return d.checkDir(root)
}

// CheckCopies returns ErrCopy when a file in one of dirs that guest components take for initdata (aa.toml, cdh.toml, policy.rego,
// initdata.toml) is not a regular file with exactly the bytes that the document has for it, and ErrRead when that could not be
// found out. A missing file or directory is no difference.
func (d *Document) CheckCopies(dirs ...string) error {
	for _, dir := range dirs {
		root, err := os.OpenRoot(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("check copies of initdata: %w: %w", ErrRead, err)
		}
		err = d.checkDir(root)
		root.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *Document) checkDir(root *os.Root) error {
	for _, name := range []string{AAKey, CDHKey, PolicyKey, documentName} {
		want, bound := d.data[name]
		if name == documentName {
			want, bound = string(d.text), true
		}
		got, err := readCopy(root, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return fmt.Errorf("check copies of initdata: %w", err)
		case !bound || !bytes.Equal(got, []byte(want)):
			return fmt.Errorf("check copies of initdata: %w: %s", ErrCopy, filepath.Join(root.Name(), name))
		}
	}
	return nil
}

// readCopy reads a regular file of at most MaxDocument bytes; anything else in its place differs from every document.
func readCopy(root *os.Root, name string) ([]byte, error) {
	before, err := root.Lstat(name)
	if err != nil {
		return nil, missingOrUnread(err)
	}
	path := filepath.Join(root.Name(), name)
	if !before.Mode().IsRegular() || before.Size() > MaxDocument {
		return nil, fmt.Errorf("%w: %s is not a file of at most %d bytes", ErrCopy, path, MaxDocument)
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, missingOrUnread(err)
	}
	defer f.Close()
	after, err := f.Stat()
	if err != nil {
		return nil, missingOrUnread(err)
	}
	if !os.SameFile(before, after) {
		return nil, fmt.Errorf("%w: %s was replaced", ErrCopy, path)
	}
	data, err := bounded.ReadAll(f, MaxDocument)
	if err != nil {
		return nil, missingOrUnread(err)
	}
	return data, nil
}

func missingOrUnread(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrRead, err)
}

// openPrivate opens dir, a real directory that only its owner can enter, and makes it and what leads to it where missing.
func openPrivate(dir string) (*os.Root, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	if parent, err := os.Lstat(filepath.Dir(dir)); err != nil || !parent.IsDir() {
		return nil, fmt.Errorf("%s is not a directory: %v", filepath.Dir(dir), err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	before, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	if !before.IsDir() {
		return nil, fmt.Errorf("%s is not a directory", dir)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	after, err := root.Stat(".")
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("%s was replaced", dir)
	}
	if err == nil {
		err = root.Chmod(".", 0o700)
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// publish makes the file name with value. It is written under a name of its own
// and linked, which fails with fs.ErrExist rather than replace or follow anything.
func publish(root *os.Root, name, value string) error {
	temporary := "." + name + "." + rand.Text()
	f, err := root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer root.Remove(temporary)
	_, err = f.WriteString(value)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return root.Link(temporary, name)
}
