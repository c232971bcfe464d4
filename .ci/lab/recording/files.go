// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// File is one file of a mount's source, as it was when the container was created.
type File struct {
	Path   string `json:"path"` // below the source; "." is the source itself
	Type   string `json:"type"` // directory, file, link, other
	Mode   string `json:"mode"` // st_mode in octal, the type included: 100644
	UID    uint32 `json:"uid,omitempty"`
	GID    uint32 `json:"gid,omitempty"`
	Target string `json:"target,omitempty"` // of a link
	Size   int64  `json:"size,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
	Text   string `json:"text,omitempty"` // the whole content where it is short and text
	Data   []byte `json:"data,omitempty"` // the same where it is short and not text
	// FileSystem is tmpfs or hugetlbfs where one of them is mounted on the source itself.
	FileSystem string `json:"filesystem,omitempty"`
	Varies     bool   `json:"varies,omitempty"` // tokens and certificates: size, digest and text are left out
}

const (
	maxFiles = 64 // of one source: a host's /etc is not what the lab is about
	maxText  = 16 << 10
	maxSize  = 4 << 20
)

// Tree lists a mount's source, in order of path. What is not the kubelet's, containerd's or the lab's is not looked into: it
// would be the machine's, and differ from one to the next.
func Tree(source string) ([]File, error) {
	var files []File
	deep := false
	for _, own := range []string{"/var/lib/kubelet/pods/", "/var/lib/containerd/", "/run/containerd/", "/srv/lab/"} {
		deep = deep || strings.HasPrefix(source, own)
	}
	err := filepath.WalkDir(source, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}
		f, err := describe(path, relative, deep)
		if err != nil {
			return err
		}
		if files = append(files, f); len(files) == maxFiles {
			return filepath.SkipAll
		}
		if !deep {
			return filepath.SkipAll
		}
		return nil
	})
	return files, err
}

func describe(path, relative string, read bool) (File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return File{}, err
	}
	stat := info.Sys().(*syscall.Stat_t)
	f := File{Path: relative, Mode: fmt.Sprintf("%06o", stat.Mode), UID: stat.Uid, GID: stat.Gid}
	switch {
	case info.IsDir():
		f.Type = "directory"
		if relative == "." {
			f.FileSystem, err = fileSystem(path)
		}
	case info.Mode()&fs.ModeSymlink != 0:
		f.Type = "link"
		f.Target, err = os.Readlink(path)
	case info.Mode().IsRegular() && info.Size() <= maxSize:
		f.Type = "file"
		if read {
			err = f.read(path)
		}
	default:
		f.Type = "other"
	}
	return f, err
}

func (f *File) read(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if bytes.HasPrefix(content, []byte("eyJ")) || bytes.HasPrefix(content, []byte("-----BEGIN CERTIFICATE")) {
		f.Varies = true
		return nil
	}
	digest := sha256.Sum256(content)
	f.Size, f.SHA256 = int64(len(content)), hex.EncodeToString(digest[:])
	if len(content) > maxText {
		return nil
	}
	if f.Data = content; utf8.Valid(content) && !bytes.ContainsRune(content, 0) {
		f.Text, f.Data = string(content), nil
	}
	return nil
}

func fileSystem(path string) (string, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return "", err
	}
	switch stat.Type {
	case unix.TMPFS_MAGIC:
		return "tmpfs", nil
	case unix.HUGETLBFS_MAGIC:
		return "hugetlbfs", nil
	}
	return "", nil
}
