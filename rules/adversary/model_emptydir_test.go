// SPDX-License-Identifier: Apache-2.0

package adversary_test

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// guestDir is where the agent makes directories of the guest for a pod.
var guestDir = regexp.MustCompile(`^/run/kata-containers/shared/containers/(?:passthrough/)?([0-9a-f]{64})/rootfs/local/([^/]+)$`)

// emptyDir is a mount of a volume that is a directory of the guest.
type emptyDir struct{ destination, volume string }

// emptyDirs are those of a genuine container, in either form.
func emptyDirs(genuine object) (out []emptyDir) {
	for _, m := range list(at(genuine, "OCI", "Mounts")) {
		destination, source := str(at(m, "destination")), str(at(m, "source"))
		if local := guestDir.FindStringSubmatch(source); local != nil {
			out = append(out, emptyDir{destination, local[2]})
		} else if copied := sharedPath.FindStringSubmatch(source); copied != nil && copied[1] == "sandbox" {
			out = append(out, emptyDir{destination, copied[3]})
		}
	}
	return out
}

// own says whether a container may have a copy of its own: no other mount has the volume, and the host may copy nothing else by
// that name.
func (f *facts) own(d emptyDir) bool {
	mounts := 0
	for _, r := range f.create {
		for _, other := range emptyDirs(r.input) {
			if other.volume == d.volume {
				mounts++
			}
		}
		for _, m := range list(at(r.input, "OCI", "Mounts")) {
			if file := sharedPath.FindStringSubmatch(str(at(m, "source"))); file != nil && file[1] != "sandbox" && file[3] == path.Base(d.destination) {
				return false
			}
		}
	}
	return mounts == 1
}

// copied says whether a directory can be a copy for an emptyDir, and whether of the container with the id alone.
func (f *facts) copied(dir, id string, d emptyDir) (own, ok bool) {
	match := sharedPath.FindStringSubmatch(dir)
	if match == nil || path.Clean(dir) != dir || strings.Count(dir, "/") != strings.Count("/run/kata-containers/shared/containers/x", "/") || !f.policy.SharesNothing() {
		return false, false
	}
	if match[1] == "sandbox" {
		return false, match[3] == d.volume
	}
	return true, match[1] == id && match[3] == path.Base(d.destination) && f.own(d)
}

// dirOf is the directory that a container's emptyDir is, "" where the mount is of no form that it may have.
func (f *facts) dirOf(input object, d emptyDir) (dir string, own, ok bool) {
	i := slices.IndexFunc(list(at(input, "OCI", "Mounts")), func(m any) bool { return at(m, "destination") == d.destination })
	if i < 0 {
		return "", false, false
	}
	m := list(at(input, "OCI", "Mounts"))[i]
	dir = str(at(m, "source"))
	switch str(at(m, "type_")) {
	case "bind":
		own, ok = f.copied(dir, str(input["container_id"]), d)
	case "local":
		match := guestDir.FindStringSubmatch(dir)
		ok = match != nil && match[2] == d.volume && match[1] == str(at(input, "OCI", "Annotations", "io.kubernetes.cri.sandbox-id"))
	}
	return dir, own, ok
}

// formless is a CreateContainer in which each emptyDir of the guest is the same, whichever form it has; in a wrong one it stays
// as it is.
func (f *facts) formless(input object, dirs []emptyDir) object {
	out := clone(input)
	for _, d := range dirs {
		dir, _, ok := f.dirOf(out, d)
		if !ok {
			continue
		}
		for _, m := range list(at(out, "OCI", "Mounts")) {
			mount, storages := m.(object), list(out["storages"])
			if mount["destination"] != d.destination {
				continue
			}
			if mount["type_"] == "local" {
				i := slices.IndexFunc(storages, func(s any) bool { return same(s, guestStorage(dir)) })
				if i < 0 {
					continue
				}
				out["storages"] = slices.Delete(slices.Clone(storages), i, i+1)
			}
			mount["source"], mount["type_"] = "(emptyDir "+d.volume+")", "(form)"
		}
	}
	return out
}

// guestStorage is what the agent is asked for a directory of the guest.
func guestStorage(dir string) object {
	return object{
		"driver": "local", "driver_options": []any{}, "fs_group": nil, "fstype": "local", "mount_point": dir,
		"options": []any{"mode=0777"}, "shared": false, "source": "local",
	}
}

// dirs are the volumes by their directories, as far as those are the whole pod's.
func (m *model) dirs(input object) map[string]string {
	out := map[string]string{}
	if genuine := m.create[nameOf(input)]; genuine != nil {
		for _, d := range emptyDirs(genuine.input) {
			if dir, own, ok := m.dirOf(input, d); ok && !own {
				out[dir+" at "+d.destination] = "emptyDir " + d.volume
			}
		}
	}
	return out
}

// makesEmptyDir is true for the copy of an empty directory for an emptyDir of some container.
func (m *model) makesEmptyDir(to, kind string) bool {
	match := sharedPath.FindStringSubmatch(to)
	for _, r := range m.create {
		for _, d := range emptyDirs(r.input) {
			if _, ok := m.copied(to, match[1], d); ok && kind == "Directory" {
				return true
			}
		}
	}
	return false
}
