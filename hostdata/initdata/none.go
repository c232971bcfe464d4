// SPDX-License-Identifier: Apache-2.0

package initdata

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// CheckNone returns ErrAppeared when there is something that guest components take for initdata, in a guest that has none:
// anything at all in own, a directory that is there for initdata alone, or one of its files (aa.toml, cdh.toml, policy.rego,
// initdata.toml, whatever begins with "initdata") in others. Links and directories of those names count. It returns ErrRead when
// that could not be found out. A missing directory has nothing.
func CheckNone(own string, others ...string) error {
	for _, dir := range append([]string{own}, others...) {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look for initdata: %w: %w", ErrRead, err)
		}
		for _, entry := range entries {
			if name := entry.Name(); dir == own || isCopy(name) {
				return fmt.Errorf("look for initdata: %w: %s", ErrAppeared, filepath.Join(dir, name))
			}
		}
	}
	return nil
}

// isCopy says whether guest components take a file of that name for initdata.
func isCopy(name string) bool {
	return name == AAKey || name == CDHKey || name == PolicyKey || strings.HasPrefix(name, "initdata")
}

// CheckNone returns ErrAppeared when a disk, or a part of one, carries initdata, or begins as if it did, in a guest that has
// none: one that was attached later, or whose host has written to it. Unless strict, a disk that cannot be read is passed over,
// as one that is just being attached or taken away is; else it is ErrRead.
func (d Disks) CheckNone(strict bool) error {
	names, err := d.candidates()
	if err != nil {
		return fmt.Errorf("look for initdata: %w", err)
	}
	for _, name := range names {
		carries, err := d.begins(name)
		switch {
		case carries:
			return fmt.Errorf("look for initdata: %w: on %s", ErrAppeared, name)
		case err != nil && strict:
			return fmt.Errorf("look for initdata: %s: %w: %w", name, ErrRead, err)
		}
	}
	return nil
}

// begins says whether a disk begins with the magic, without reading on.
func (d Disks) begins(name string) (bool, error) {
	r, err := d.open(name)
	if err != nil {
		return false, err
	}
	defer r.Close()
	var head [len(magic)]byte
	switch _, err := io.ReadFull(r, head[:]); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return false, nil
	case err != nil:
		return false, err
	}
	return string(head[:]) == magic, nil
}
