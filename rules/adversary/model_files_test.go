// SPDX-License-Identifier: Apache-2.0

package adversary_test

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// files are what was copied into the guest, by path, as the agent keeps it.
type files map[string]file

type file struct {
	kind   string // "Regular", "Directory", "Symlink"
	sha    string // of a file that was copied whole, else what says that it was not
	size   int64
	mode   int64
	target string
	sure   bool // it is there
}

// takes is false for a copy that the agent cannot make.
func (f files) takes(input object) bool {
	to, kind := f.place(str(input["path"])), str(input["file_type"])
	was, there := f[to]
	switch {
	case there && kind != "Directory" && was.kind == "Directory":
		return false
	case there && kind == "Directory" && was.kind != "Directory":
		return false
	}
	return true
}

// place is where a path leads to, its directories being links maybe.
func (f files) place(to string) string {
	at := ""
	parts := strings.Split(strings.Trim(to, "/"), "/")
	for steps := 0; len(parts) > 1 && steps < 40; steps++ {
		if link := f[at+"/"+parts[0]]; link.kind == "Symlink" {
			parts = append(strings.Split(strings.Trim(path.Clean("/"+link.target), "/"), "/"), parts[1:]...)
			continue
		}
		at, parts = at+"/"+parts[0], parts[1:]
	}
	return at + "/" + strings.Join(parts, "/")
}

// partial is where the agent assembles a file: several can share it.
func partial(to string) string {
	dir, name := path.Split(to)
	if i := strings.LastIndex(name, "."); i > 0 {
		name = name[:i]
	}
	return dir + name + ".tmp"
}

// copy takes in what the agent has copied.
func (f files) copy(input object, sure bool) {
	to, kind := f.place(str(input["path"])), str(input["file_type"])
	n := file{kind: kind, mode: number(input["file_mode"]) & 0o7777, target: str(input["symlink_target"]), sure: sure}
	if kind != "Regular" {
		f[to] = n
		return
	}
	part := "part of " + partial(to)
	began := f[part]
	offset, size := number(input["offset"]), number(input["data_size"])
	whole := began.sha == "" && offset == 0
	n.sha, n.size = str(input["data_sha256"]), size
	if !whole {
		n.sha, n.size = fmt.Sprintf("%s, then %s at %d", began.sha, n.sha, offset), max(began.size, offset+size)
	}
	if n.size != number(input["file_size"]) { // more is to come
		f[part] = n
		return
	}
	delete(f, part)
	if was := f[to]; was.sure { // the same file in its place: it is there whether the agent took the second or not
		was.sure = sure
		n.sure = sure || was == n
	}
	f[to] = n
}

// resolve follows the links of a path below a directory, as far as they stay in it.
func (f files) resolve(dir, below string) (file, string) {
	at := dir
	parts := strings.Split(below, "/")
	if below == "" {
		parts = nil
	}
	for steps := 0; len(parts) > 0 && steps < 20; steps++ {
		next := f[at+"/"+parts[0]]
		if next.kind == "Symlink" {
			parts = append(strings.Split(next.target, "/"), parts[1:]...)
			continue
		}
		at, parts = at+"/"+parts[0], parts[1:]
	}
	return f[at], at
}

// breaksFile: a copied file lies in a volume of the shared directory, is what the volume's manifest has, and a link stays inside.
func (m *model) breaksFile(r *request) string {
	return work(r, "file", func() string {
		to, kind := str(r.input["path"]), str(r.input["file_type"])
		match := sharedPath.FindStringSubmatch(to)
		switch {
		case match == nil || path.Clean(to) != to:
			return "file outside of the shared volumes: " + to
		case kind != "Regular" && kind != "Directory" && kind != "Symlink":
			return "file of another kind"
		case kind == "Regular" && number(r.input["file_mode"])&0o6000 != 0:
			return "file with a set-id bit"
		case m.makesEmptyDir(to, kind):
			return ""
		case match[1] == "sandbox":
			return "file of no volume, or in an emptyDir: " + to
		}
		if kind == "Symlink" {
			target := str(r.input["symlink_target"])
			if match[4] == "" || path.IsAbs(target) || slices.Contains(strings.Split(target, "/"), "..") {
				return "link out of its volume: " + to + " to " + target
			}
			if strings.HasSuffix(to, ".tmp") {
				return "link where the agent assembles a file"
			}
		}
		return m.unknownFile(match[3], match[4], r.input)
	})
}

// unknownFile: no volume of that name has such a file.
func (m *model) unknownFile(volume, below string, input object) string {
	if len(m.volumes) == 0 {
		return ""
	}
	bound := false
	for name := range m.create {
		for _, mount := range list(at(m.create[name].input, "OCI", "Mounts")) {
			match := sharedPath.FindStringSubmatch(str(at(mount, "source")))
			if match == nil || match[1] == "sandbox" || match[3] != volume {
				continue
			}
			all, ok := m.volumes[name][str(at(mount, "destination"))]
			if !ok || all.holds(below, input) {
				return ""
			}
			bound = true
		}
	}
	if !bound {
		return "file of no volume: " + volume
	}
	return fmt.Sprintf("contents of no volume of that name: %s/%s is %.8s", volume, below, str(input["data_sha256"]))
}

// holds is true for a file, or a part of an open volume, that the manifest has.
func (c contents) holds(below string, input object) bool {
	switch kind := str(input["file_type"]); {
	case kind != "Regular" && (len(c.files) > 0 || c.open):
		return true
	case kind == "Directory": // of a volume that stays empty: the kubelet's dated directories, and the link to one, hold nothing
		return below == "" || dated.MatchString(below)
	case kind == "Symlink":
		return below == "..data" && dated.MatchString(str(input["symlink_target"]))
	}
	known, ok := c.files[keyOf(below)]
	if !ok {
		return c.open
	}
	return known.sha == str(input["data_sha256"]) && number(input["offset"]) == 0 && number(input["file_size"]) == int64(known.size)
}

var dated = regexp.MustCompile(`^\.\.[0-9_]+\.[0-9]+$`)

// keyOf is a path in a volume without the dated directory that the kubelet writes into.
func keyOf(below string) string {
	first, rest, ok := strings.Cut(below, "/")
	if ok && strings.HasPrefix(first, "..") {
		return rest
	}
	return below
}

// incomplete: all files of the container's bound volumes are there, as the manifest has them.
func (m *model) incomplete(name string, input object) string {
	if weak(m.policy.Strict.Mounts) {
		return ""
	}
	for _, mount := range list(at(input, "OCI", "Mounts")) {
		destination := str(at(mount, "destination"))
		all, ok := m.volumes[name][destination]
		if !ok {
			continue
		}
		if broken := m.files.lacks(str(at(mount, "source")), all); broken != "" {
			return fmt.Sprintf("%s of %s: %s", destination, name, broken)
		}
	}
	return ""
}

// lacks says which file of a volume is not what the manifest has.
func (f files) lacks(source string, all contents) string {
	for key, want := range all.files {
		got, where := f.resolve(source, key)
		switch {
		case want.optional && got.kind == "":
		case got.kind != "Regular" || !got.sure:
			return key + " was not copied"
		case got.sha != want.sha || got.size != int64(want.size):
			return key + " has other contents"
		case got.mode&0o400 == 0:
			return key + " cannot be read"
		}
		for dir := path.Dir(where); strings.HasPrefix(dir, source+"/"); dir = path.Dir(dir) {
			if d := f[dir]; d.kind == "Directory" && d.mode&0o555 != 0o555 {
				return key + " is in a directory that cannot be read"
			}
		}
	}
	if all.open {
		return ""
	}
	for at, got := range f {
		below, ok := strings.CutPrefix(at, source+"/")
		if _, known := all.files[keyOf(below)]; ok && got.kind == "Regular" && !known {
			return below + " is no file of it"
		}
	}
	return ""
}

// changed: nothing of a bound volume changes while its container is there.
func (m *model) changed() string {
	for _, c := range m.containers {
		if broken := m.incomplete(c.name, c.input); broken != "" {
			return "changed: " + broken
		}
	}
	return ""
}
