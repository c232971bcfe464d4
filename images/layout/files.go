// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"portcullis/images"
)

// dirFiles is a directory; os.Root keeps links from leading out of it.
type dirFiles struct{ root *os.Root }

func openDir(dir string) (*dirFiles, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &dirFiles{root}, nil
}

func (d *dirFiles) Close() error { return d.root.Close() }

func (d *dirFiles) open(name string) (io.ReadCloser, int64, error) {
	// A pipe would block in open for ever, so the kind comes first.
	info, err := d.root.Stat(name)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s: not a regular file", name)
	}
	f, err := d.root.Open(name)
	if err != nil {
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// maxArchiveEntries bounds the entries of an archive, which are blobs and little else.
const maxArchiveEntries = 100_000

// maxLinks bounds links to links in an archive; docker save of old made layers links to equal layers.
const maxLinks = 8

// tarFiles is the inside of an uncompressed tar archive, found again by offset.
type tarFiles struct {
	file    *os.File
	entries map[string]tarEntry // by cleaned path; the last of a name counts
}

type tarEntry struct {
	offset, size int64
	link         string // cleaned path of what a link points to, or ""
}

func openTar(name string) (*tarFiles, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	t := &tarFiles{file: f, entries: map[string]tarEntry{}}
	if err := t.scan(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	return t, nil
}

// scan notes where each file is. It skips contents by seeking.
func (t *tarFiles) scan() error {
	tr := tar.NewReader(t.file)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading archive: %w", err)
		}
		if len(t.entries) >= maxArchiveEntries {
			return &images.LimitError{What: "number of entries in the archive", Limit: maxArchiveEntries}
		}
		name := path.Clean("/" + h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			offset, err := t.file.Seek(0, io.SeekCurrent)
			if err != nil {
				return err
			}
			t.entries[name] = tarEntry{offset: offset, size: h.Size}
		case tar.TypeSymlink:
			t.entries[name] = tarEntry{link: path.Join(path.Dir(name), h.Linkname)}
		case tar.TypeLink:
			t.entries[name] = tarEntry{link: path.Clean("/" + h.Linkname)}
		}
	}
}

func (t *tarFiles) Close() error { return t.file.Close() }

func (t *tarFiles) open(name string) (io.ReadCloser, int64, error) {
	at := path.Clean("/" + name)
	for range maxLinks {
		e, ok := t.entries[at]
		if !ok {
			return nil, 0, fmt.Errorf("%s: %w in the archive", name, fs.ErrNotExist)
		}
		if e.link == "" {
			return io.NopCloser(io.NewSectionReader(t.file, e.offset, e.size)), e.size, nil
		}
		at = e.link
	}
	return nil, 0, fmt.Errorf("%s: too many links in the archive", name)
}
