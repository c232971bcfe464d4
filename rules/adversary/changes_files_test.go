// SPDX-License-Identifier: Apache-2.0

package adversary_test

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
)

// fileChanges are what an attacker would try with copied files.
var fileChanges = slices.Concat(copyChanges, emptyDirChanges, []change{{"leave files out", leaveFilesOut}, {"copy after", copyAfter}})

// copyChanges change one copy, or put others beside it.
var copyChanges = []change{
	{"other contents", otherContents}, {"borrow contents", borrowContents}, {"swap contents", swapContents}, {"other place", otherPlace}, {"respell a path", respell},
	{"link elsewhere", linkElsewhere}, {"in parts", inParts}, {"unreadable", unreadable}, {"other type", otherType}, {"file of another container", fileOfAnother},
	{"new directory", newDirectory}, {"file more", fileMore}, {"set-id", setID}, {"link name", linkName}, {"into another volume", intoAnother},
}

func regular(e event) bool {
	return e.kind == "CopyFileRequest" && str(e.input["file_type"]) == "Regular"
}

// inVolume is a file below a directory that is copied: not one that every container has.
func inVolume(e event) bool {
	return e.kind == "CopyFileRequest" && strings.Count(str(e.input["path"]), "/") > 5
}

func volumeFile(e event) bool { return regular(e) && inVolume(e) }

// fileOf prefers files of volumes.
func fileOf(es []event, s step) int {
	if i := pick(es, s.At, volumeFile); i >= 0 && s.Item%4 > 0 {
		return i
	}
	return pick(es, s.At, regular)
}

func withData(in object, sha string, size int64) {
	in["data_sha256"], in["data_size"], in["file_size"] = sha, json.Number(fmt.Sprint(size)), json.Number(fmt.Sprint(size))
}

func otherContents(p *pod, es []event, s step) []event {
	return p.edit(es, fileOf(es, s), func(in object) {
		if s.Item%2 == 0 {
			in["data_sha256"] = strings.Repeat("0", 64)
			return
		}
		withData(in, strings.Repeat("1", 64), 7)
	})
}

// borrowContents gives a file the contents of another, of this sequence or of the pod.
func borrowContents(p *pod, es []event, s step) []event {
	from := pick(p.life, s.From, volumeFile)
	if from < 0 {
		return es
	}
	return p.edit(es, fileOf(es, s), func(in object) {
		for _, key := range []string{"data_sha256", "data_size", "file_size"} {
			in[key] = p.life[from].input[key]
		}
		if s.Item%3 == 0 {
			in["path"] = path.Dir(str(in["path"])) + "/" + path.Base(str(p.life[from].input["path"]))
		}
	})
}

// swapContents exchanges the contents of two files.
func swapContents(p *pod, es []event, s step) []event {
	i, j := pick(es, s.At, volumeFile), pick(es, s.From, volumeFile)
	if i < 0 || i == j {
		return es
	}
	a, b := es[i], es[j]
	for _, key := range []string{"data_sha256", "data_size", "file_size"} {
		es = p.edit(es, i, func(in object) { in[key] = b.input[key] })
		es = p.edit(es, j, func(in object) { in[key] = a.input[key] })
	}
	return es
}

// otherPlace copies a file to another path.
func otherPlace(p *pod, es []event, s step) []event {
	from := pick(p.life, s.From, ofKind("CopyFileRequest"))
	if from < 0 {
		return es
	}
	return p.edit(es, pick(es, s.At, ofKind("CopyFileRequest")), func(in object) { in["path"] = p.life[from].input["path"] })
}

func respell(p *pod, es []event, s step) []event {
	return p.edit(es, pick(es, s.At, ofKind("CopyFileRequest")), func(in object) {
		to := str(in["path"])
		dir, base := path.Split(to)
		in["path"] = []string{
			strings.TrimPrefix(to, "/"), strings.Replace(to, "/run", "/run/../run", 1), to + "/../x", strings.Replace(to, "/", "//", 1), dir + "./" + base, to + "/",
			"/run/kata-containers/" + idAt(es, s.From) + "/rootfs/x", "/run/kata-containers/sandbox/shm/x", "/etc/x", dir + ".." + base,
			"/run/kata-containers/shared/containers/" + strings.Repeat("a", 64) + "-" + strings.Repeat("b", 16) + "-" + strings.Repeat("c", 16) + "-" + path.Base(to),
			"/run/kata-containers/shared/containers/passthrough/" + path.Base(to),
		}[s.Item%12]
	})
}

func links(e event) bool {
	return e.kind == "CopyFileRequest" && str(e.input["file_type"]) == "Symlink"
}

func linkElsewhere(p *pod, es []event, s step) []event {
	from := pick(p.life, s.From, links)
	i := pick(es, s.At, links)
	if from < 0 { // another change made the first link of this pod
		return es
	}
	return p.edit(es, i, func(in object) {
		other := str(p.life[from].input["symlink_target"])
		in["symlink_target"] = []string{"/etc/shadow", "../../x", "..data/../..", "..data", other, "..data/" + path.Base(other), ".", "..2026_01_01_00_00_00.1", ""}[s.Item%9]
	})
}

func linkName(p *pod, es []event, s step) []event {
	i := pick(es, s.At, links)
	if i < 0 {
		return es
	}
	input := clone(es[i].input)
	to := str(input["path"])
	input["path"] = []string{to + ".tmp", strings.TrimSuffix(to, path.Ext(to)) + ".tmp", path.Dir(to), to + "/x", path.Dir(to) + "/other"}[s.Item%5]
	return slices.Insert(slices.Clone(es), s.From%(len(es)+1), p.of(es[i].kind, input))
}

// inParts copies a file in two parts, of which one is another's.
func inParts(p *pod, es []event, s step) []event {
	i := fileOf(es, s)
	if i < 0 {
		return es
	}
	part := func(change func(object)) event {
		in := clone(es[i].input)
		change(in)
		return p.of(es[i].kind, in)
	}
	size := number(es[i].input["file_size"])
	to := str(es[i].input["path"])
	more := []event{part(func(in object) {
		in["data_sha256"], in["data_size"] = strings.Repeat("2", 64), json.Number("3")
		switch s.Item % 4 {
		case 0:
			in["file_size"] = json.Number(fmt.Sprint(size + 3))
		case 1:
			in["offset"] = json.Number(fmt.Sprint(size))
			in["file_size"] = json.Number(fmt.Sprint(size + 3))
		case 2:
			in["path"] = strings.TrimSuffix(to, path.Ext(to)) + ".other"
			in["file_size"] = json.Number("99")
		case 3:
			in["offset"] = json.Number("1")
		}
	})}
	if s.From%2 == 0 {
		return slices.Insert(slices.Clone(es), i, more...)
	}
	return slices.Insert(slices.Clone(es), i+1, more...)
}

func unreadable(p *pod, es []event, s step) []event {
	return p.edit(es, pick(es, s.At, inVolume), func(in object) {
		kind := number(in["file_mode"]) &^ 0o7777
		in["file_mode"] = json.Number(fmt.Sprint(kind | []int64{0, 0o200, 0o111, 0o777, 0o001, 0o444}[s.Item%6]))
	})
}

func setID(p *pod, es []event, s step) []event {
	return p.edit(es, pick(es, s.At, regular), func(in object) {
		in["file_mode"] = json.Number(fmt.Sprint(number(in["file_mode"]) | []int64{0o4000, 0o2000, 0o6000}[s.Item%3]))
	})
}

func otherType(p *pod, es []event, s step) []event {
	i := pick(es, s.At, ofKind("CopyFileRequest"))
	if link := pick(es, s.At, links); link >= 0 && s.Item/4%2 == 0 {
		i = link
	}
	return p.edit(es, i, func(in object) {
		kind := []string{"Regular", "Directory", "Symlink", "Unknown"}[s.Item%4]
		in["file_type"], in["symlink_target"] = kind, nil
		if kind == "Symlink" {
			in["symlink_target"] = []string{"..data", "../x", "/etc", "x"}[s.From%4]
		}
	})
}

// fileOfAnother copies a file of one container to the place of another's.
func fileOfAnother(p *pod, es []event, s step) []event {
	i := pick(es, s.At, inVolume)
	if i < 0 {
		return es
	}
	to := sharedPath.FindStringSubmatch(str(es[i].input["path"]))
	return p.edit(es, i, func(in object) {
		if to != nil {
			in["path"] = strings.Replace(str(in["path"]), to[1], idAt(es, s.From), 1)
		}
	})
}

// leaveFilesOut leaves out a run of copies.
func leaveFilesOut(_ *pod, es []event, s step) []event {
	i := pick(es, s.At, inVolume)
	if i < 0 || len(es) < 12 {
		return es
	}
	end := i + 1
	for n := 0; end < len(es) && n < s.Item%4 && es[end].kind == "CopyFileRequest"; n++ {
		end++
	}
	return slices.Delete(slices.Clone(es), i, end)
}

// copyAfter copies something of a volume once more, changed, when its container is there.
func copyAfter(p *pod, es []event, s step) []event {
	i := pick(es, s.At, inVolume)
	if i < 0 {
		return es
	}
	kind := copyChanges[s.Item%len(copyChanges)]
	more := kind.apply(p, []event{es[i]}, step{At: 0, From: s.From, Item: s.Item / len(copyChanges)})
	return slices.Insert(slices.Clone(es), i+1+s.From%(len(es)-i), more...)
}

// newDirectory writes a dated directory beside the one there is, as the kubelet does for new contents, and moves the link.
func newDirectory(p *pod, es []event, s step) []event {
	i := pick(es, s.At, func(e event) bool { return links(e) && path.Base(str(e.input["path"])) == "..data" })
	if i < 0 {
		return es
	}
	top := path.Dir(str(es[i].input["path"]))
	was, now := str(es[i].input["symlink_target"]), []string{"..2027_01_01_00_00_00.1", "..2027_01_01_00_00_00", "..x", "..2026_11_28_12_00_00.9"}[s.Item%4]
	var more []event
	for _, e := range es {
		if to := str(e.input["path"]); e.kind == "CopyFileRequest" && (strings.HasPrefix(to, top+"/"+was) || to == top+"/..data") {
			more = append(more, p.renamed(e, was, now))
		}
	}
	if s.Item/4%3 > 0 && len(more) > 1 { // not all of them
		n := s.From % len(more)
		more = slices.Delete(more, n, n+1)
	}
	return slices.Insert(slices.Clone(es), i+1+s.From%(len(es)-i), more...)
}

// fileMore copies a file that no manifest has.
func fileMore(p *pod, es []event, s step) []event {
	i := pick(es, s.At, inVolume)
	if i < 0 {
		return es
	}
	input := clone(es[i].input)
	input["file_type"], input["symlink_target"], input["file_mode"], input["offset"] = "Regular", nil, json.Number("33188"), json.Number("0")
	withData(input, strings.Repeat("3", 64), 5)
	input["path"] = path.Dir(str(input["path"])) + "/" + []string{"more", "app.conf", "..data", "rules.tmp", "dir/rules", "rules", "token"}[s.Item%7]
	return slices.Insert(slices.Clone(es), s.From%(len(es)+1), p.of("CopyFileRequest", input))
}

// intoAnother copies something of a volume into another one too, to the same place in it.
func intoAnother(p *pod, es []event, s step) []event {
	i := pick(es, s.At, inVolume)
	var sources []string
	for _, m := range list(at(p.anyCreate(s.From).input, "OCI", "Mounts")) {
		if source := str(at(m, "source")); sharedPath.MatchString(source) {
			sources = append(sources, source)
		}
	}
	if i < 0 || len(sources) == 0 {
		return es
	}
	input := clone(es[i].input)
	if to := sharedPath.FindStringSubmatch(str(input["path"])); to != nil {
		input["path"] = sources[s.Item%len(sources)] + "/" + to[4]
	}
	return slices.Insert(slices.Clone(es), i+1+s.Item/8%(len(es)-i), p.of("CopyFileRequest", input))
}
