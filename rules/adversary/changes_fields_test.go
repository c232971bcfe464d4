// SPDX-License-Identifier: Apache-2.0

package adversary_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// fieldChanges change any field of any request that creates or configures something.
var fieldChanges = []change{
	{"change a leaf", leaf(1)}, {"change leaves", leaf(3)}, {"borrow a field", borrowField}, {"swap items", swapItems}, {"borrow an item", borrowItem},
	{"leave out an item", leaveOutItem},
}

// place is where a value stands, and how to replace it.
type place struct {
	path  string
	value any
	set   func(any)
}

// places are all leaves and lists of an input.
func places(input object) (out []place) {
	var walk func(path string, v any, set func(any))
	walk = func(path string, v any, set func(any)) {
		switch v := v.(type) {
		case object:
			isMap := strings.HasSuffix(path, "Annotations") || strings.HasSuffix(path, "Sysctl")
			for _, name := range slices.Sorted(maps.Keys(v)) {
				next := strings.TrimPrefix(path+"."+name, ".")
				if isMap {
					next = path + "[" + name + "]"
				}
				walk(next, v[name], func(n any) {
					if v[name] = n; isMap && n == nil {
						delete(v, name)
					}
				})
			}
			if isMap {
				out = append(out, place{path, v, set})
			}
		case []any:
			out = append(out, place{path, v, set})
			for i := range v {
				walk(path+"[]", v[i], func(n any) { v[i] = n })
			}
		default:
			out = append(out, place{path, v, set})
		}
	}
	walk("", input, func(any) {})
	return out
}

// changed kinds of requests; creation more often than the others.
var changeable = ofKind("CreateContainerRequest", "ExecProcessRequest", "CreateSandboxRequest", "CopyFileRequest", "UpdateInterfaceRequest", "UpdateRoutesRequest", "SignalProcessRequest", "StartContainerRequest")

func target(es []event, s step) int {
	if s.At%3 > 0 {
		return pick(es, s.At/3, ofKind("CreateContainerRequest"))
	}
	return pick(es, s.At/3, changeable)
}

// leaf changes some places of one request.
func leaf(n int) func(*pod, []event, step) []event {
	return func(p *pod, es []event, s step) []event {
		return p.edit(es, target(es, s), func(in object) {
			for k := range n {
				all := places(in)
				at := all[(s.From*131+s.Item*17+k*977)%len(all)]
				at.set(other(at, s.Item+k, all))
			}
		})
	}
}

// other is a value of the same kind.
func other(at place, n int, all []place) any {
	switch v := at.value.(type) {
	case string:
		return otherText(v, n, all)
	case bool:
		return !v
	case json.Number:
		i, _ := v.Int64()
		return json.Number(strconv.FormatInt([]int64{i + 1, i - 1, 0, 1, -1, i * 2, 1 << 30}[n%7], 10))
	case nil:
		return first[at.path]
	case []any:
		return otherList(at.path, v, n, all)
	case object: // a map of texts
		out := clone(v)
		keys := slices.Sorted(maps.Keys(v))
		if n%2 == 0 || len(keys) == 0 {
			out[[]string{"example.com/more", "io.kubernetes.cri.image-name", "cdi.k8s.io/vfio9", "net.core.somaxconn", "io.katacontainers.config.hypervisor.kernel_params"}[n%5]] = "1"
			return out
		}
		delete(out, keys[n%len(keys)])
		return out
	}
	return at.value
}

// first are messages where none was, with all their fields, as the gate fills them in.
var first = map[string]any{
	"OCI.Process.ConsoleSize":         object{"Height": 1, "Width": 1},
	"process.ConsoleSize":             object{"Height": 1, "Width": 1},
	"storages[].fs_group":             object{"group_change_policy": 0, "group_id": 0},
	"OCI.Linux.Resources.Memory":      object{"DisableOOMKiller": true, "Kernel": 0, "KernelTCP": 0, "Limit": 1, "Reservation": 0, "Swap": 0, "Swappiness": 0},
	"OCI.Linux.Resources.Pids":        object{"Limit": 1},
	"OCI.Linux.Seccomp":               object{"DefaultAction": "SCMP_ACT_ALLOW", "Architectures": []any{}, "Flags": []any{}, "Syscalls": []any{}},
	"process.Capabilities":            object{"Ambient": []any{}, "Bounding": []any{"CAP_SYS_ADMIN"}, "Effective": []any{}, "Inheritable": []any{}, "Permitted": []any{}},
	"string_user":                     object{"uid": "0", "gid": "0", "additional_gids": []any{}},
	"devices":                         object{"container_path": "", "id": "", "options": []any{}, "type_": "", "vm_path": ""},
	"OCI.Linux.Devices":               object{"Path": "", "Type": "", "Major": 0, "Minor": 0, "FileMode": 0, "UID": 0, "GID": 0},
	"storages":                        object{"driver": "", "driver_options": []any{}, "fs_group": nil, "fstype": "", "mount_point": "", "options": []any{}, "shared": false, "source": ""},
	"OCI.Linux.UIDMappings":           object{"HostID": 0, "ContainerID": 0, "Size": 1},
	"OCI.Linux.GIDMappings":           object{"HostID": 0, "ContainerID": 0, "Size": 1},
	"OCI.Process.Rlimits":             object{"Type": "RLIMIT_NOFILE", "Hard": 1, "Soft": 1},
	"process.Rlimits":                 object{"Type": "RLIMIT_NOFILE", "Hard": 1, "Soft": 1},
	"OCI.Linux.Resources.Devices":     object{"Allow": true, "Type": "a", "Major": 0, "Minor": 0, "Access": "rwm"},
	"OCI.Process.User.AdditionalGids": 0,
	"process.User.AdditionalGids":     0,
}

func otherText(v string, n int, all []place) any {
	texts := slices.DeleteFunc(slices.Clone(all), func(p place) bool { s, ok := p.value.(string); return !ok || s == "" })
	switch n % 8 {
	case 0:
		return v + "x"
	case 1:
		return "x" + v
	case 2:
		return ""
	case 3:
		return v + "/.."
	case 4:
		return strings.ToUpper(v)
	case 5:
		return v + "\n"
	case 6:
		return strings.Replace(v, "/", "//", 1)
	}
	if len(texts) == 0 {
		return "x"
	}
	return texts[(n*7919)%len(texts)].value
}

func otherList(path string, v []any, n int, all []place) any {
	if len(v) == 0 {
		if item, ok := first[path]; ok {
			return []any{item}
		}
		return []any{"x"}
	}
	out := slices.Clone(v)
	i := n / 6 % len(v)
	switch n % 6 {
	case 0:
		return []any{}
	case 1:
		return slices.Delete(out, i, i+1)
	case 2:
		return slices.Insert(out, i, v[i])
	case 3:
		j := (i + 1) % len(v)
		out[i], out[j] = out[j], out[i]
		return out
	case 4:
		slices.Reverse(out)
		return out
	}
	if s, ok := v[i].(string); ok {
		return append(out, otherText(s, n/6, all))
	}
	return append(out, v[i])
}

// own replaces the id of one CreateContainer by another's in what was borrowed.
func ownID(v any, from, to object) any {
	return renamed(object{"v": v}, str(from["container_id"]), str(to["container_id"]))["v"]
}

// fields are what a container can borrow from another one.
var fields = [][]string{
	{"OCI", "Process", "Args"}, {"OCI", "Process", "User"}, {"OCI", "Process", "Env"}, {"OCI", "Process", "Cwd"}, {"OCI", "Process", "Capabilities"}, {"OCI", "Process"},
	{"OCI", "Root"}, {"OCI", "Mounts"}, {"OCI", "Linux"}, {"OCI", "Linux", "CgroupsPath"}, {"OCI", "Linux", "Devices"}, {"OCI", "Linux", "Namespaces"}, {"OCI", "Linux", "MaskedPaths"},
	{"OCI", "Annotations"}, {"OCI", "Annotations", "io.kubernetes.cri.container-name"}, {"OCI", "Annotations", "io.kubernetes.cri.image-name"},
	{"OCI", "Annotations", "io.kubernetes.cri.container-type"}, {"storages"}, {"devices"}, {"container_id"}, {"exec_id"}, {"sandbox_pidns"}, {"stdin_port"},
}

// borrowField gives a container a field of another one, with its own id in it or the other's.
func borrowField(p *pod, es []event, s step) []event {
	from := p.anyCreate(s.From)
	return p.edit(es, pick(es, s.At, ofKind("CreateContainerRequest")), func(in object) {
		path := fields[s.Item%len(fields)]
		v := at(from.input, path...)
		if s.From/8%2 == 0 {
			v = ownID(v, from.input, in)
		}
		if slices.Contains(path, "io.kubernetes.cri.image-name") && s.From/16%2 == 0 {
			put(in, ownID(from.input["storages"], from.input, in), "storages")
		}
		put(in, v, path...)
	})
}

// lists are those that an item is borrowed from, or swapped in.
var lists = [][]string{{"OCI", "Mounts"}, {"storages"}, {"OCI", "Process", "Env"}, {"OCI", "Process", "Args"}, {"devices"}, {"OCI", "Linux", "Devices"}, {"OCI", "Linux", "Namespaces"}}

func borrowItem(p *pod, es []event, s step) []event {
	from := p.anyCreate(s.From)
	return p.edit(es, pick(es, s.At, ofKind("CreateContainerRequest")), func(in object) {
		path := lists[s.Item%len(lists)]
		items := list(at(from.input, path...))
		if len(items) == 0 {
			return
		}
		item := ownID(items[s.Item/len(lists)%len(items)], from.input, in)
		all := slices.Clone(list(at(in, path...)))
		switch {
		case s.From/8%2 == 0 || len(all) == 0:
			all = slices.Insert(all, s.From/16%(len(all)+1), item)
		default:
			all[s.From/16%len(all)] = item
		}
		put(in, all, path...)
	})
}

// leaveOutItem leaves out an item of a list.
func leaveOutItem(p *pod, es []event, s step) []event {
	return p.edit(es, pick(es, s.At, ofKind("CreateContainerRequest")), func(in object) {
		where := lists[s.Item%len(lists)]
		items := list(at(in, where...))
		if len(items) == 0 {
			return
		}
		i := s.From % len(items)
		holder := any(in)
		if len(where) > 1 {
			holder = at(in, where[:len(where)-1]...)
		}
		holder.(object)[where[len(where)-1]] = slices.Delete(slices.Clone(items), i, i+1)
	})
}

// swapItems swaps two items of a list, or one field of two of them.
func swapItems(p *pod, es []event, s step) []event {
	return p.edit(es, pick(es, s.At, ofKind("CreateContainerRequest")), func(in object) {
		items := list(at(in, lists[s.Item%len(lists)]...))
		if len(items) < 2 {
			return
		}
		i, j := s.From%len(items), (s.From/8+s.From+1)%len(items)
		a, ok := items[i].(object)
		b, too := items[j].(object)
		if !ok || !too || s.Item/len(lists)%3 == 0 {
			items[i], items[j] = items[j], items[i]
			return
		}
		names := slices.Sorted(maps.Keys(a))
		name := names[s.Item/len(lists)%len(names)]
		a[name], b[name] = b[name], a[name]
	})
}
