// SPDX-License-Identifier: Apache-2.0

package adversary_test

import (
	"encoding/json"
	"path"
	"slices"
	"strings"
)

// emptyDirChanges are what an attacker would try with emptyDirs that are directories of the guest.
var emptyDirChanges = []change{{"another directory", otherDirectory}, {"into an emptyDir", intoEmptyDir}}

// directories are those that an emptyDir of a container could be said to be, and of what type its mount is then.
func directories(p *pod, create *request, d emptyDir, s step) (dir, kind string) {
	const shared = "/run/kata-containers/shared/containers/"
	id, other := create.id(), p.anyCreate(s.From)
	sandbox := str(at(create.input, "OCI", "Annotations", "io.kubernetes.cri.sandbox-id"))
	random := []string{"-0123456789abcdef-", "-fedcba9876543210-"}[s.From/4%2]
	volume := d.volume
	if all := emptyDirs(other.input); len(all) > 0 && s.From/8%3 == 0 {
		volume = all[s.From/24%len(all)].volume
	}
	switch s.Item % 10 {
	case 0, 1:
		return shared + "sandbox" + random + volume, "bind"
	case 2, 3:
		return shared + id + random + path.Base(d.destination), "bind"
	case 4:
		return shared + other.id() + random + path.Base(d.destination), "bind"
	case 5:
		return shared + sandbox + "/rootfs/local/" + volume, "local"
	case 6:
		return shared + "passthrough/" + sandbox + "/rootfs/local/" + volume, "local"
	case 7:
		return shared + "sandbox" + random + "x-" + volume, "bind"
	case 8:
		return shared + "sandbox" + random + volume + "/in", "bind"
	}
	return str(at(other.input, "OCI", "Root", "Path")), "bind"
}

// emptyDirOf is an emptyDir of a container of the sequence, and the place of its request.
func emptyDirOf(es []event, s step) (i int, d emptyDir) {
	i = pick(es, s.At, func(e event) bool { return e.kind == "CreateContainerRequest" && len(emptyDirs(e.input)) > 0 })
	if i >= 0 {
		all := emptyDirs(es[i].input)
		d = all[s.Item/10%len(all)]
	}
	return i, d
}

// otherDirectory gives an emptyDir another directory, with what the agent is asked for in its place or without.
func otherDirectory(p *pod, es []event, s step) []event {
	i, d := emptyDirOf(es, s)
	if i < 0 {
		return es
	}
	dir, kind := directories(p, es[i].request, d, s)
	return p.edit(es, i, func(in object) {
		for _, m := range list(at(in, "OCI", "Mounts")) {
			mount := m.(object)
			if mount["destination"] != d.destination {
				continue
			}
			was := mount["source"]
			mount["source"], mount["type_"] = dir, kind
			if s.Item/30%3 > 0 { // as a runtime would
				in["storages"] = slices.DeleteFunc(slices.Clone(list(in["storages"])), func(o any) bool { return at(o, "mount_point") == was })
				if kind == "local" {
					in["storages"] = append(list(in["storages"]), guestStorage(dir))
				}
			}
		}
	})
}

// intoEmptyDir copies something into a directory that an emptyDir is, or could be.
func intoEmptyDir(p *pod, es []event, s step) []event {
	i, d := emptyDirOf(es, s)
	if i < 0 {
		return es
	}
	dir, _, _ := p.facts.dirOf(es[i].input, d)
	if s.From%2 == 0 || dir == "" {
		dir, _ = directories(p, es[i].request, d, step{From: s.From, Item: s.Item / 20})
	}
	kind := []string{"Directory", "Regular", "Symlink", "Regular"}[s.Item/3%4]
	input := object{
		"path": dir + []string{"", "/x", "/..2027_01_01_00_00_00.1", "/..data", "/../x", "x"}[s.Item/2%6], "file_type": kind, "symlink_target": nil, "offset": json.Number("0"),
		"file_mode": json.Number("33188"), "dir_mode": json.Number("493"), "uid": json.Number("0"), "gid": json.Number("0"),
	}
	if kind == "Symlink" {
		input["symlink_target"] = []string{"..2027_01_01_00_00_00.1", "x", "/etc"}[s.From/2%3]
	}
	withData(input, strings.Repeat("4", 64), 3)
	return slices.Insert(slices.Clone(es), s.From/2%(len(es)+1), p.of("CopyFileRequest", input))
}
