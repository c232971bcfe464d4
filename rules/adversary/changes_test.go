// SPDX-License-Identifier: Apache-2.0

package adversary_test

import (
	"slices"
	"strings"

	"portcullis/internal/rulestest"
)

// step is one change of a sequence. At and From choose requests, Item an item of a list; each is taken modulo what there is.
type step struct{ What, At, From, Item int }

// changes are the kinds of change; each returns the changed sequence.
var changes = []struct {
	name  string
	apply func([]rulestest.Request, step) []rulestest.Request
}{
	{"repeat", repeat}, {"leave out", leaveOut}, {"reorder", reorder}, {"remove and take again", takeAgain},
	{"borrow args", borrow("OCI", "Process", "Args")}, {"borrow user", borrow("OCI", "Process", "User")},
	{"borrow env", borrow("OCI", "Process", "Env")}, {"borrow cwd", borrow("OCI", "Process", "Cwd")},
	{"borrow root", borrow("OCI", "Root")}, {"borrow mounts", borrow("OCI", "Mounts")}, {"borrow storages", borrow("storages")},
	{"borrow devices", borrow("devices")}, {"borrow image", borrowImage}, {"borrow a mount", borrowItem("OCI", "Mounts")},
	{"borrow a source", borrowSource}, {"other id", otherID}, {"network", network}, {"respell a path", respell},
	{"borrow exec", borrowExec}, {"other contents", contents}, {"other container", aim},
}

// apply makes the changes one after the other.
func apply(genuine []rulestest.Request, steps []step) []rulestest.Request {
	out := slices.Clone(genuine)
	for _, s := range steps {
		out = changes[s.What%len(changes)].apply(out, s)
	}
	return out
}

// pick returns the place of a request of a kind, or -1.
func pick(rs []rulestest.Request, kind string, n int) int {
	var found []int
	for i, r := range rs {
		if r.Kind == kind {
			found = append(found, i)
		}
	}
	if len(found) == 0 {
		return -1
	}
	return found[n%len(found)]
}

// edit changes a copy of a request, and leaves out what a pull repeats of it.
func edit(rs []rulestest.Request, i int, change func(object)) []rulestest.Request {
	if i < 0 {
		return rs
	}
	input := clone(rs[i].Input)
	change(input)
	for _, s := range list(input["storages"]) {
		if at(s, "driver") == "image_guest_pull" {
			s.(object)["driver_options"] = []any{}
		}
	}
	out := slices.Clone(rs)
	out[i] = rulestest.Request{Kind: rs[i].Kind, Input: input}
	return out
}

func repeat(rs []rulestest.Request, s step) []rulestest.Request {
	return slices.Insert(slices.Clone(rs), s.From%(len(rs)+1), rs[s.At%len(rs)])
}

func leaveOut(rs []rulestest.Request, s step) []rulestest.Request {
	if len(rs) < 2 {
		return rs
	}
	i := s.At % len(rs)
	return slices.Delete(slices.Clone(rs), i, i+1)
}

func reorder(rs []rulestest.Request, s step) []rulestest.Request {
	i := s.At % len(rs)
	r := rs[i]
	rs = slices.Delete(slices.Clone(rs), i, i+1)
	return slices.Insert(rs, s.From%(len(rs)+1), r)
}

func takeAgain(rs []rulestest.Request, s step) []rulestest.Request {
	i := pick(rs, "CreateContainerRequest", s.At)
	if i < 0 {
		return rs
	}
	remove := rulestest.Request{Kind: "RemoveContainerRequest", Input: object{"container_id": rs[i].Input["container_id"], "timeout": 0}}
	return slices.Insert(slices.Clone(rs), i+1, remove, rs[i])
}

// own replaces the id of one CreateContainer by another's in what was borrowed.
func own(v any, from, to object) any {
	a, _ := from["container_id"].(string)
	b, _ := to["container_id"].(string)
	if a == "" || b == "" {
		return v
	}
	return parse(strings.ReplaceAll(text(object{"v": v}), a, b))["v"]
}

func borrow(path ...string) func([]rulestest.Request, step) []rulestest.Request {
	return func(rs []rulestest.Request, s step) []rulestest.Request {
		i, j := pick(rs, "CreateContainerRequest", s.At), pick(rs, "CreateContainerRequest", s.From)
		return edit(rs, i, func(in object) {
			v := at(rs[j].Input, path...)
			if s.Item%2 == 0 {
				v = own(v, rs[j].Input, in)
			}
			put(in, v, path...)
		})
	}
}

func put(in object, v any, path ...string) {
	if o, ok := at(in, path[:len(path)-1]...).(object); ok {
		o[path[len(path)-1]] = v
	}
}

func borrowImage(rs []rulestest.Request, s step) []rulestest.Request {
	const key = "io.kubernetes.cri.image-name"
	j := pick(rs, "CreateContainerRequest", s.From)
	return edit(rs, pick(rs, "CreateContainerRequest", s.At), func(in object) {
		put(in, at(rs[j].Input, "OCI", "Annotations", key), "OCI", "Annotations", key)
		if s.Item%2 == 0 {
			put(in, own(rs[j].Input["storages"], rs[j].Input, in), "storages")
		}
	})
}

func borrowItem(path ...string) func([]rulestest.Request, step) []rulestest.Request {
	return func(rs []rulestest.Request, s step) []rulestest.Request {
		j := pick(rs, "CreateContainerRequest", s.From)
		return edit(rs, pick(rs, "CreateContainerRequest", s.At), func(in object) {
			if items := list(at(rs[j].Input, path...)); len(items) > 0 {
				put(in, append(list(at(in, path...)), own(items[s.Item%len(items)], rs[j].Input, in)), path...)
			}
		})
	}
}

// borrowSource gives a mount the source that another container has at the same place, or the source of another mount.
func borrowSource(rs []rulestest.Request, s step) []rulestest.Request {
	j := pick(rs, "CreateContainerRequest", s.From)
	return edit(rs, pick(rs, "CreateContainerRequest", s.At), func(in object) {
		mounts, others := list(at(in, "OCI", "Mounts")), list(at(rs[j].Input, "OCI", "Mounts"))
		if len(mounts) == 0 || len(others) == 0 {
			return
		}
		m := mounts[s.Item%len(mounts)].(object)
		for _, o := range others {
			if at(o, "destination") == m["destination"] {
				m["source"] = at(o, "source")
				return
			}
		}
		m["source"] = at(others[s.Item%len(others)], "source")
	})
}

var otherIDs = []string{"sandbox", "shared", "image", "passthrough", strings.Repeat("a", 64) + "-" + strings.Repeat("b", 16), strings.Repeat("A", 64), "../x"}

// otherID gives a container an id in every request from one on, wherever it stands.
func otherID(rs []rulestest.Request, s step) []rulestest.Request {
	i := pick(rs, "CreateContainerRequest", s.At)
	if i < 0 {
		return rs
	}
	id, _ := rs[i].Input["container_id"].(string)
	if id == "" {
		return rs
	}
	out := slices.Clone(rs)
	for n, r := range rs {
		if raw := text(r.Input); strings.Contains(raw, id) {
			out[n] = rulestest.Request{Kind: r.Kind, Input: parse(strings.ReplaceAll(raw, id, otherIDs[s.Item%len(otherIDs)]))}
		}
	}
	return out
}

func network(rs []rulestest.Request, s step) []rulestest.Request {
	paths := []string{"", "/proc/1/ns/net", "/run/netns/x"}
	return edit(rs, pick(rs, "CreateContainerRequest", s.At), func(in object) {
		entry := object{"Type": "network", "Path": paths[s.Item%len(paths)]}
		put(in, append(list(at(in, "OCI", "Linux", "Namespaces")), entry), "OCI", "Linux", "Namespaces")
	})
}

func respell(rs []rulestest.Request, s step) []rulestest.Request {
	return edit(rs, pick(rs, "CopyFileRequest", s.At), func(in object) {
		path, _ := in["path"].(string)
		in["path"] = []string{strings.TrimPrefix(path, "/"), strings.Replace(path, "/run", "/run/../run", 1), path + "/../x"}[s.Item%3]
	})
}

func borrowExec(rs []rulestest.Request, s step) []rulestest.Request {
	j := pick(rs, "ExecProcessRequest", s.From)
	c := pick(rs, "CreateContainerRequest", s.At)
	if j < 0 || c < 0 {
		return rs
	}
	input := clone(rs[j].Input)
	put(input, own(at(rs[c].Input, "OCI", "Process", "User"), rs[c].Input, input), "process", "User")
	put(input, at(rs[c].Input, "OCI", "Process", "Env"), "process", "Env")
	put(input, at(rs[c].Input, "OCI", "Process", "Cwd"), "process", "Cwd")
	input["container_id"] = rs[c].Input["container_id"]
	return append(slices.Clone(rs), rulestest.Request{Kind: "ExecProcessRequest", Input: input})
}

func contents(rs []rulestest.Request, s step) []rulestest.Request {
	j := pick(rs, "CopyFileRequest", s.From)
	return edit(rs, pick(rs, "CopyFileRequest", s.At), func(in object) {
		in["data_sha256"] = at(rs[j].Input, "data_sha256")
		if s.Item%2 == 0 {
			in["data_sha256"] = strings.Repeat("0", 64)
		}
	})
}

// aim sends a request to another container.
func aim(rs []rulestest.Request, s step) []rulestest.Request {
	kinds := []string{"StartContainerRequest", "SignalProcessRequest", "ExecProcessRequest", "RemoveContainerRequest"}
	id := []any{strings.Repeat("c", 64), rs[s.From%len(rs)].Input["container_id"]}[s.Item%2]
	return edit(rs, pick(rs, kinds[s.Item/2%len(kinds)], s.At), func(in object) {
		if id != nil {
			in["container_id"] = id
		}
	})
}
