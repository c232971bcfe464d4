// SPDX-License-Identifier: Apache-2.0

package rulestest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"portcullis/rules/policydata"
)

// dated is the directory that a kubelet writes a volume's files into.
const dated = "..2026_11_23_08_00_00.1"

// sharedSource is where the mount lies that is the nth of a container by destination.
func (e Emulator) sharedSource(id string, n int, m policydata.Mount) string {
	return fmt.Sprintf("%s/%s-%016x-%s", e.Policy.Common.SharedDirs[0], id, n, m.Source)
}

// CopyFiles returns the requests that fill those volumes of a container whose contents the policy knows, as a shim sends them: the
// files in a dated directory, a link to it, and links to the files.
func (e Emulator) CopyFiles(name string) []Request {
	var out []Request
	c := e.Policy.Containers[name]
	for n, destination := range slices.Sorted(maps.Keys(c.Mounts)) {
		if m := c.Mounts[destination]; m.Contents != nil && m.From == policydata.MountShared {
			out = append(out, copies(e.sharedSource(ID(name), n, m), m.Contents.Files)...)
		}
	}
	return out
}

func copies(source string, files map[string]policydata.File) []Request {
	if f, ok := files[""]; ok {
		return []Request{copyFile(source, f)}
	}
	out := []Request{CopyFile(source, "Directory")}
	if len(files) == 0 {
		return out
	}
	out = append(out, CopyFile(source+"/"+dated, "Directory"))
	links := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(files)) {
		if dir, _, ok := cutLast(key); ok {
			out = append(out, CopyFile(source+"/"+dated+"/"+dir, "Directory"))
		}
		out = append(out, copyFile(source+"/"+dated+"/"+key, files[key]))
		top, _, _ := strings.Cut(key, "/")
		links[top] = true
	}
	out = append(out, copyLink(source+"/..data", dated))
	for _, top := range slices.Sorted(maps.Keys(links)) {
		out = append(out, copyLink(source+"/"+top, "..data/"+top))
	}
	return out
}

func cutLast(path string) (dir, base string, found bool) {
	i := strings.LastIndex(path, "/")
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

// copyModes are the modes of what is copied, by file_type.
var copyModes = map[string]uint32{"Regular": 0o100644, "Directory": 0o40755, "Symlink": 0o120777}

// CopyFile returns the request that copies an empty file, a directory or a link that points nowhere, by file_type.
func CopyFile(path, kind string) Request {
	return Request{"CopyFileRequest", wire(map[string]any{
		"path": path, "file_type": kind, "symlink_target": nil, "file_size": 0, "file_mode": copyModes[kind], "dir_mode": 0o755,
		"uid": 0, "gid": 0, "offset": 0, "data_sha256": strings.Repeat("0", 64), "data_size": 0,
	}).(map[string]any)}
}

func copyFile(path string, f policydata.File) Request {
	r := CopyFile(path, "Regular")
	if f.SHA256 != "" {
		maps.Copy(r.Input, wire(map[string]any{"file_mode": 0o100000 | f.Mode, "file_size": f.Size, "data_size": f.Size, "data_sha256": f.SHA256}).(map[string]any))
	}
	return r
}

func copyLink(path, target string) Request {
	r := CopyFile(path, "Symlink")
	r.Input["symlink_target"] = target
	return r
}
