// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"path"
	"strings"

	"portcullis/agentproto/agentpb"
	"portcullis/internal/emulator/hostfs"
)

// mostData is the most that one request copies, bytes.
const mostData = 1 << 20

// copy sends what is below a path of the host, directories before their entries. Sockets and devices are left out.
func (c *container) copy(source, to string) {
	for _, p := range c.shim.Files.Walk(source) {
		file := c.shim.Files[p]
		switch file.Type() {
		case hostfs.Regular, hostfs.Directory, hostfs.Symlink:
			c.copyFile(file, path.Join(to, strings.TrimPrefix(p, source)), p == source)
		}
	}
}

// again are the copies that runtime-rs makes a second time, having watched the directories meanwhile.
func (c *container) again() []message {
	var out []message
	for _, m := range c.copies {
		if r := m.(*agentpb.CopyFileRequest); strings.Contains(strings.TrimPrefix(r.Path, sharedDir), "/") {
			out = append(out, r)
		}
	}
	return out
}

func (c *container) copyFile(file hostfs.File, to string, top bool) {
	r := &agentpb.CopyFileRequest{Path: to, FileMode: file.Mode, Uid: int32(file.UID), Gid: int32(file.GID)}
	if c.shim.Config.Kind == Go {
		const directory = 1 << 31 // as Go's os.ModeDir
		r.DirMode = directory | 0o750
	} else if file.Type() == hostfs.Directory {
		if r.DirMode = hostfs.Directory | 0o755; top {
			r.DirMode = hostfs.Directory | 0o750
		}
	}
	switch file.Type() {
	case hostfs.Directory:
		c.copies = append(c.copies, r)
		return
	case hostfs.Symlink:
		r.Data = file.Data
		if c.shim.Config.Kind == RuntimeRS {
			r.FileMode, r.FileSize = hostfs.Symlink, int64(len(file.Data))
		}
		c.copies = append(c.copies, r)
		return
	}
	r.FileSize = int64(len(file.Data))
	for offset := 0; offset == 0 || offset < len(file.Data); offset += mostData {
		part := &agentpb.CopyFileRequest{
			Path: r.Path, FileMode: r.FileMode, DirMode: r.DirMode, Uid: r.Uid, Gid: r.Gid, FileSize: r.FileSize,
			Offset: int64(offset), Data: file.Data[offset:min(offset+mostData, len(file.Data))],
		}
		c.copies = append(c.copies, part)
	}
}
