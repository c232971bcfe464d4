// SPDX-License-Identifier: Apache-2.0

// Package hostfs holds the files of an emulated node: what a kubelet and a
// container runtime write for a pod, and what a hostPath volume finds.
package hostfs

import (
	"path"
	"slices"
	"strings"
)

// File types, the bits of st_mode that say what a file is.
const (
	TypeMask    = 0o170000
	Socket      = 0o140000
	Symlink     = 0o120000
	Regular     = 0o100000
	BlockDevice = 0o060000
	Directory   = 0o040000
	CharDevice  = 0o020000
)

// File is one file, without its name.
type File struct {
	Mode     uint32 // st_mode, with the type
	UID, GID uint32
	Data     []byte // contents of a regular file, target of a symbolic link

	// FileSystem is the type of the file system that is mounted on a directory:
	// "tmpfs", "hugetlbfs" (Data is then the size of its pages), "" for any other.
	FileSystem string
}

// Type is the file's type, one of the constants above.
func (f File) Type() uint32 { return f.Mode & TypeMask }

// FS holds files by absolute, clean path. Directories above a file need not be there.
type FS map[string]File

// Walk returns the path itself, if it is there, and everything below, each directory before its entries and the entries by name.
func (fs FS) Walk(root string) []string {
	var out []string
	for p := range fs {
		if p == root || strings.HasPrefix(p, strings.TrimSuffix(root, "/")+"/") {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b string) int {
		return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
	})
	return out
}

// Entries returns the names in a directory, sorted.
func (fs FS) Entries(dir string) []string {
	var out []string
	for p := range fs {
		if p != dir && path.Dir(p) == dir {
			out = append(out, path.Base(p))
		}
	}
	slices.Sort(out)
	return out
}

// Stat follows the symbolic links of p, those of its directories included as far
// as they are relative, and returns the path that is meant.
func (fs FS) Stat(p string) (string, File, bool) {
	for range 16 {
		file, ok := fs[p]
		if !ok {
			resolved := path.Join(fs.parent(path.Dir(p)), path.Base(p))
			if resolved == p {
				return p, File{}, false
			}
			p = resolved
			continue
		}
		if file.Type() != Symlink {
			return p, file, true
		}
		target := string(file.Data)
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(p), target)
		}
		p = target
	}
	return p, File{}, false
}

func (fs FS) parent(dir string) string {
	if dir == "/" || dir == "." {
		return dir
	}
	if file, ok := fs[dir]; ok && file.Type() == Symlink && !path.IsAbs(string(file.Data)) {
		return path.Join(path.Dir(dir), string(file.Data))
	}
	return path.Join(fs.parent(path.Dir(dir)), path.Base(dir))
}
