// SPDX-License-Identifier: Apache-2.0

package images

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// The two files that say who is who, as they are named in a layer once their paths are cleaned.
const (
	passwdPath = "etc/passwd"
	groupPath  = "etc/group"
)

// Lookup says when layers are read to find out who a user is.
type Lookup int

const (
	// WhenNamed reads layers only for names. A numeric user then gets group 0 if it has none written: what a host sees
	// when the image is pulled inside the guest, and there is no file system to look into.
	WhenNamed Lookup = iota

	// Always reads layers for numbers too, because a host that has the image's file system takes a numeric user's group
	// and memberships from it.
	Always
)

// Identity resolves user, which is "user[:group]" as in [Config.User] (pass the part before the colon for what the
// kubelet makes of a workload's).
func (i *Image) Identity(ctx context.Context, user string, lookup Lookup) (Identity, error) {
	if lookup == WhenNamed && Numeric(user) {
		return (*Accounts)(nil).Identity(user)
	}
	a, err := i.Accounts(ctx)
	if err != nil {
		return Identity{}, err
	}
	return a.Identity(user)
}

// Accounts reads /etc/passwd and /etc/group of the merged layers, once per image. It starts at the top layer and stops
// at the layer below which nothing can matter. Files that are not there are empty. A file that is a link, or below
// one, is an error: what it stands for is decided by the rest of the file system.
func (i *Image) Accounts(ctx context.Context) (*Accounts, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.accounts != nil {
		return i.accounts, nil
	}
	files := map[string][]byte{}
	open := []string{passwdPath, groupPath}
	for n := len(i.Layers) - 1; n >= 0 && len(open) > 0; n-- {
		view, err := i.Layers[n].accountFiles(ctx)
		if err != nil {
			return nil, fmt.Errorf("reading accounts of %s: layer %d: %w", i.Reference, n, err)
		}
		var below []string
		for _, name := range open {
			content, found, err := view.look(name)
			if err != nil {
				return nil, fmt.Errorf("reading accounts of %s: layer %d: %w", i.Reference, n, err)
			}
			files[name] = content
			if !found && !view.hides(name) {
				below = append(below, name)
			}
		}
		open = below
	}
	i.accounts = ParseAccounts(files[passwdPath], files[groupPath])
	return i.accounts, nil
}

// accountFiles streams the layer through to its end, where its digests are known to be right.
func (l *Layer) accountFiles(ctx context.Context) (view *layerView, err error) {
	rc, err := l.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	view, err = readView(rc, l.limits)
	if err != nil {
		return nil, fmt.Errorf("reading layer %s: %w", l.Digest, err)
	}
	return view, nil
}

// layerView is what one layer says of the account files.
type layerView struct {
	entries   map[string]entry // of "etc" and the files in question; the last of a name counts
	whiteouts map[string]bool  // paths that the layer removes from those below it
	opaque    map[string]bool  // directories ("." is the root) whose lower content the layer hides
}

type entry struct {
	kind    byte // of archive/tar
	target  string
	content []byte
}

// readView reads a layer's tar to the end of r. It trusts nothing in it.
func readView(r io.Reader, limits Limits) (*layerView, error) {
	v := &layerView{entries: map[string]entry{}, whiteouts: map[string]bool{}, opaque: map[string]bool{}}
	tr := tar.NewReader(r)
	var count int
	var declared int64
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("tar: %w", err)
		}
		if count++; count > limits.Entries {
			return nil, &LimitError{What: "number of entries in a layer", Limit: int64(limits.Entries)}
		}
		// A sparse file may declare more than there is.
		if declared += h.Size; h.Size < 0 || declared < 0 || declared > limits.LayerSize {
			return nil, &LimitError{What: "sum of file sizes in a layer", Limit: limits.LayerSize}
		}
		if err := v.add(h, tr, limits.File); err != nil {
			return nil, err
		}
	}
	// What follows the tar's end mark belongs to the digest.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, err
	}
	return v, nil
}

const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
)

func (v *layerView) add(h *tar.Header, r io.Reader, limit int64) error {
	name, err := cleanPath(h.Name)
	if err != nil {
		return err
	}
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	switch {
	case base == opaqueMarker:
		if dir == "." || dir == "etc" {
			v.opaque[dir] = true
		}
	case strings.HasPrefix(base, whiteoutPrefix):
		hidden := path.Join(dir, strings.TrimPrefix(base, whiteoutPrefix))
		if hidden == "etc" || hidden == passwdPath || hidden == groupPath {
			v.whiteouts[hidden] = true
		}
	case name == "etc":
		v.entries[name] = entry{kind: h.Typeflag, target: h.Linkname}
	case name == passwdPath || name == groupPath:
		e := entry{kind: h.Typeflag, target: h.Linkname}
		if h.Typeflag == tar.TypeReg {
			if e.content, err = io.ReadAll(newLimitReader(r, "/"+name, limit)); err != nil {
				return err
			}
		}
		v.entries[name] = e
	}
	return nil
}

// look returns the file called name, if the layer has it.
func (v *layerView) look(name string) (content []byte, found bool, err error) {
	if etc, ok := v.entries["etc"]; ok && etc.kind != tar.TypeDir {
		return nil, false, fmt.Errorf("/etc is %s; state user and groups in the manifest instead", etc.describe())
	}
	e, ok := v.entries[name]
	if !ok {
		return nil, false, nil
	}
	if e.kind != tar.TypeReg {
		return nil, false, fmt.Errorf("/%s is %s; state user and groups in the manifest instead", name, e.describe())
	}
	return e.content, true, nil
}

// hides says whether name of a lower layer is not to be seen through this one.
func (v *layerView) hides(name string) bool {
	return v.whiteouts[name] || v.whiteouts["etc"] || v.opaque["."] || v.opaque["etc"]
}

func (e entry) describe() string {
	switch e.kind {
	case tar.TypeSymlink:
		return fmt.Sprintf("a symbolic link to %.200q", e.target)
	case tar.TypeLink:
		return fmt.Sprintf("a hard link to %.200q", e.target)
	case tar.TypeDir:
		return "a directory"
	case tar.TypeReg:
		return "a file"
	}
	return fmt.Sprintf("an entry of type %q", e.kind)
}

// cleanPath is the path that a tar entry is unpacked to, without leading slash, "." for the root. A name with ".." in it
// has no place in a layer and is refused, not interpreted.
func cleanPath(name string) (string, error) {
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", fmt.Errorf("tar: entry %.200q leads out of its directory", name)
		}
	}
	clean := strings.TrimPrefix(path.Clean("/"+name), "/")
	if clean == "" {
		return ".", nil
	}
	return clean, nil
}
