// SPDX-License-Identifier: Apache-2.0

package adversary_test

import (
	"encoding/json"
	"slices"
	"strings"
)

// containerChanges are what an attacker would try with a container.
var containerChanges = []change{
	{"other id", otherID}, {"id of another", idOfAnother}, {"network namespace", network}, {"control group", controlGroup},
	{"block device", blockDevice}, {"device swapped", deviceSwapped}, {"one device twice", deviceTwice}, {"mount order", mountOrder}, {"mount below", mountBelow},
	{"device of the guest", guestDevice}, {"ephemeral mounts", ephemeral}, {"exec", insertExec}, {"exec changed", execChanged}, {"other root", otherRoot},
	{"environment", environment}, {"ports", ports}, {"privileges", privileges}, {"storage more", storageMore},
}

// otherIDs are no ids, or read in two ways.
var otherIDs = []string{
	"sandbox", "shared", "image", "passthrough", strings.Repeat("a", 64) + "-" + strings.Repeat("b", 16), strings.Repeat("A", 64), "../x", "",
	strings.Repeat("a", 63), strings.Repeat("a", 65), strings.Repeat("a", 64) + "/..", strings.Repeat("g", 64),
}

// otherID gives a container another id wherever it stands.
func otherID(p *pod, es []event, s step) []event {
	id := idAt(es, s.At)
	out := slices.Clone(es)
	for n, e := range es {
		out[n] = p.renamed(e, id, otherIDs[s.Item%len(otherIDs)])
		if s.From%2 == 0 && e.kind == "CreateContainerRequest" && e.id() == id { // which the runtime may leave out
			out = p.edit(out, n, func(in object) { put(in, "", "OCI", "Linux", "CgroupsPath") })
		}
	}
	return out
}

// idOfAnother gives a container the id that another one has or had, in some or all requests.
func idOfAnother(p *pod, es []event, s step) []event {
	id, other := idAt(es, s.At), idAt(es, s.From)
	out := slices.Clone(es)
	for n, e := range es {
		if s.Item%2 == 0 || e.kind == []string{"CreateContainerRequest", "CopyFileRequest", "ExecProcessRequest", "StartContainerRequest"}[s.Item/2%4] {
			out[n] = p.renamed(e, id, other)
		}
	}
	return out
}

func network(p *pod, es []event, s step) []event {
	path := []string{"", "/proc/1/ns/net", "/run/netns/x", "/run/netns/podns"}[s.Item%4]
	kind := []string{"network", "pid", "user", "cgroup", "time", "ipc"}[s.From%6]
	return p.edit(es, pick(es, s.At, ofKind("CreateContainerRequest")), func(in object) {
		all := list(at(in, "OCI", "Linux", "Namespaces"))
		entry := object{"Type": kind, "Path": path}
		if s.Item/4%2 == 0 || len(all) == 0 {
			put(in, append(slices.Clone(all), entry), "OCI", "Linux", "Namespaces")
			return
		}
		all[s.From%len(all)].(object)["Path"] = path
	})
}

func controlGroup(p *pod, es []event, s step) []event {
	other := idAt(es, s.From)
	return p.edit(es, pick(es, s.At, ofKind("CreateContainerRequest")), func(in object) {
		id := str(in["container_id"])
		put(in, []string{
			"/system.slice/policyd.service", "/kubepods/" + other, "/../" + id, "system.slice:policyd:" + id, "/kubepods/" + id + "/..", "/", "kubepods:cri:" + other, "/kubepods/x",
			"/" + id + "/policyd.service",
		}[s.Item%9], "OCI", "Linux", "CgroupsPath")
	})
}

// blockStorages are the block storages of an input.
func blockStorages(in object) (out []object) {
	for _, s := range list(in["storages"]) {
		if _, ok := block(s); ok {
			out = append(out, s.(object))
		}
	}
	return out
}

// withBlock is a container that has a block storage.
func withBlock(e event) bool {
	return e.kind == "CreateContainerRequest" && len(blockStorages(e.input)) > 0
}

// address moves a storage to another device, with where it is mounted.
func address(in, storage object, source string) {
	was := str(storage["mount_point"])
	storage["source"], storage["mount_point"] = source, devicePoint(source)
	for _, m := range list(at(in, "OCI", "Mounts")) {
		if mount := m.(object); str(mount["source"]) == was {
			mount["source"] = devicePoint(source)
		}
	}
}

// blockDevice puts a volume on another device, another's maybe.
func blockDevice(p *pod, es []event, s step) []event {
	return p.edit(es, pick(es, s.At, withBlock), func(in object) {
		all := blockStorages(in)
		var known []string
		for i := range 4 {
			for _, b := range blockStorages(p.anyCreate(i).input) {
				known = append(known, str(b["source"]))
			}
		}
		address(in, all[s.From%len(all)], append(known, "0f", "03/07", "../../etc", "/dev/mem", "0000:00:1f.0")[s.Item%(len(known)+5)])
	})
}

// deviceSwapped exchanges the devices of two volumes of a container, in the mounts.
func deviceSwapped(p *pod, es []event, s step) []event {
	return p.edit(es, pick(es, s.At, withBlock), func(in object) {
		var volumes []object
		for _, m := range list(at(in, "OCI", "Mounts")) {
			if strings.HasPrefix(str(at(m, "source")), "/run/kata-containers/sandbox/storage/") {
				volumes = append(volumes, m.(object))
			}
		}
		if len(volumes) > 1 {
			a, b := volumes[s.From%len(volumes)], volumes[(s.From+1)%len(volumes)]
			a["source"], b["source"] = b["source"], a["source"]
		}
	})
}

// deviceTwice puts two volumes on one device.
func deviceTwice(p *pod, es []event, s step) []event {
	return p.edit(es, pick(es, s.At, withBlock), func(in object) {
		all := blockStorages(in)
		address(in, all[s.From%len(all)], str(all[(s.From+1)%len(all)]["source"]))
	})
}

// mountOrder puts one mount elsewhere in the list.
func mountOrder(p *pod, es []event, s step) []event {
	return p.edit(es, pick(es, s.At, ofKind("CreateContainerRequest")), func(in object) {
		mounts := slices.Clone(list(at(in, "OCI", "Mounts")))
		if len(mounts) == 0 {
			return
		}
		i := len(mounts) - 1 - s.Item%min(len(mounts), 8)
		m := mounts[i]
		mounts = slices.Delete(mounts, i, i+1)
		put(in, slices.Insert(mounts, s.From%(len(mounts)+1), m), "OCI", "Mounts")
	})
}

// mountBelow mounts something at, above or below a mount.
func mountBelow(p *pod, es []event, s step) []event {
	return p.edit(es, pick(es, s.At, ofKind("CreateContainerRequest")), func(in object) {
		mounts := slices.Clone(list(at(in, "OCI", "Mounts")))
		if len(mounts) == 0 {
			return
		}
		m := clone(mounts[s.From%len(mounts)].(object))
		to := str(m["destination"])
		m["destination"] = []string{to + "/", to + "/sub", to + "/../x", strings.TrimPrefix(to, "/"), "/", "/etc", to}[s.Item%7]
		put(in, append(mounts, m), "OCI", "Mounts")
	})
}

func guestDevice(p *pod, es []event, s step) []event {
	paths := []string{"/dev/mem", "/dev/tpmrm0", "/dev/char/10:224", "/dev/vda", "/dev/pmem0", "/dev/sda", "/dev/vda1", "", "dev/vda", "/dev/../dev/mem"}
	types := []string{"nvdimm", "blk", "scsi", "mmioblk", "blk-ccw", "vfio-pci-gk", "vfio-ap"}
	return p.edit(es, pick(es, s.At, ofKind("CreateContainerRequest")), func(in object) {
		devices := slices.Clone(list(in["devices"]))
		entry := object{"container_path": "/dev/x", "id": "", "options": []any{}, "type_": types[s.From%len(types)], "vm_path": paths[s.Item%len(paths)]}
		if len(devices) == 0 || s.From/8%2 == 0 {
			in["devices"] = append(devices, entry)
			return
		}
		d := devices[s.Item%len(devices)].(object)
		d["type_"], d["vm_path"] = entry["type_"], entry["vm_path"]
	})
}

// ephemeral asks for sizes of volumes in memory, and for more than that.
func ephemeral(p *pod, es []event, s step) []event {
	points := []string{"/run/kata-containers/sandbox/shm", "/run/kata-containers/sandbox/ephemeral/memory", "/run/kata-containers/sandbox/ephemeral/other", "/run/kata-containers/sandbox/ephemeral/..", "/etc", "/run/portcullis"}
	options := [][]any{{"remount", "size=1024"}, {"size=1"}, {"bind"}, {"remount", "bind"}, {"size=1,bind"}, {"rbind", "ro"}, {}}
	storage := object{
		"driver": []string{"ephemeral", "local"}[s.Item/7%2], "driver_options": []any{}, "source": []string{"tmpfs", "shm", "/etc"}[s.From/6%3], "fstype": []string{"tmpfs", "tmpfs", "bind"}[s.Item%3],
		"options": options[s.Item%7], "mount_point": points[s.From%6], "fs_group": nil, "shared": false,
	}
	return slices.Insert(slices.Clone(es), s.At%(len(es)+1), p.of("UpdateEphemeralMountsRequest", object{"storages": []any{storage}}))
}

// insertExec runs a process of a container in one of them, with the other's user maybe.
func insertExec(p *pod, es []event, s step) []event {
	into, from := p.anyCreate(s.At), p.anyCreate(s.From)
	var known []*request
	for i := range 4 {
		known = append(known, p.facts.execs[nameOf(p.anyCreate(i).input)]...)
	}
	process := clone(at(into.input, "OCI", "Process").(object))
	process["Capabilities"], process["Terminal"], process["OOMScoreAdj"], process["NoNewPrivileges"] = nil, s.Item/8%4 == 3, json.Number("0"), false
	process["Args"] = []any{[]any{"sh"}, []any{"sh", "-c", "true"}, at(into.input, "OCI", "Process", "Args"), []any{}}[s.Item%4]
	if len(known) > 0 && s.Item%8 > 3 {
		process["Args"] = at(known[s.Item%len(known)].input, "process", "Args")
	}
	if s.Item/32%2 == 1 {
		process["User"] = at(from.input, "OCI", "Process", "User")
	}
	id := into.id()
	input := object{"container_id": id, "exec_id": []string{"exec-7", id, "", "../x"}[s.From/4%4], "string_user": nil, "process": process, "stdin_port": 0, "stdout_port": 0, "stderr_port": 0}
	return slices.Insert(slices.Clone(es), s.From*7%(len(es)+1), p.of("ExecProcessRequest", input))
}

// execChanged sends a process to another container, or gives it what is another's.
func execChanged(p *pod, es []event, s step) []event {
	from := p.anyCreate(s.From)
	return p.edit(es, pick(es, s.At, ofKind("ExecProcessRequest")), func(in object) {
		switch s.Item % 6 {
		case 0:
			in["container_id"] = from.id()
		case 1:
			put(in, at(from.input, "OCI", "Process", "User"), "process", "User")
		case 2:
			put(in, at(from.input, "OCI", "Process", "Env"), "process", "Env")
		case 3:
			put(in, at(from.input, "OCI", "Process", "Args"), "process", "Args")
		case 4:
			put(in, at(from.input, "OCI", "Process", "Capabilities"), "process", "Capabilities")
		case 5:
			put(in, true, "process", "Terminal")
		}
	})
}

// otherRoot runs a container on another's root, its own id kept.
func otherRoot(p *pod, es []event, s step) []event {
	from := p.anyCreate(s.From)
	return p.edit(es, pick(es, s.At, ofKind("CreateContainerRequest")), func(in object) {
		id := str(in["container_id"])
		root := str(at(from.input, "OCI", "Root", "Path"))
		put(in, []string{root, root + "/", "/", "/run/kata-containers/shared/containers/" + id + "/rootfs", "/run/kata-containers/" + id, strings.Replace(root, "/rootfs", "/../x/rootfs", 1)}[s.Item%6], "OCI", "Root", "Path")
	})
}

// variables that no manifest has, or that are known otherwise.
var variables = []string{
	"LD_PRELOAD=/x.so", "PATH=/x", "HOSTNAME=x", "TERM=xterm", "TERM=x", "KUBERNETES_SERVICE_HOST=10.0.0.9", "A_SERVICE_HOST=10.0.0.1", "A_SERVICE_HOST=x y", "POD_UID=--x", "a=b", "=", "X",
	"BASH_ENV=/x", "POD_NAME=x", "POD_IP=999.1", "POD_IP=10.0.0.1", "AZURE_CLIENT_ID=0", "LD_SERVICE_PORT=1\nX=1",
}

func environment(p *pod, es []event, s step) []event {
	return p.edit(es, pick(es, s.At, ofKind("CreateContainerRequest", "ExecProcessRequest")), func(in object) {
		path := []string{"OCI", "Process", "Env"}
		if in["process"] != nil {
			path = path[1:]
			path[0] = "process"
		}
		all := slices.Clone(list(at(in, path...)))
		entry := variables[s.Item%len(variables)]
		if s.From%3 == 0 && len(all) > 0 {
			all[s.From/3%len(all)] = entry
		} else {
			all = slices.Insert(all, s.From/3%(len(all)+1), any(entry))
		}
		put(in, all, path...)
	})
}

func ports(p *pod, es []event, s step) []event {
	return p.edit(es, pick(es, s.At, ofKind("CreateContainerRequest", "ExecProcessRequest")), func(in object) {
		in[[]string{"stdin_port", "stdout_port", "stderr_port"}[s.Item%3]] = json.Number("1024")
	})
}

// privileges gives a container more than it has.
func privileges(p *pod, es []event, s step) []event {
	return p.edit(es, pick(es, s.At, ofKind("CreateContainerRequest")), func(in object) {
		switch s.Item % 8 {
		case 0:
			set := list(at(in, "OCI", "Process", "Capabilities", "Bounding"))
			put(in, append(slices.Clone(set), "CAP_SYS_ADMIN"), "OCI", "Process", "Capabilities", "Bounding")
		case 1:
			put(in, []any{}, "OCI", "Linux", "MaskedPaths")
		case 2:
			put(in, []any{}, "OCI", "Linux", "ReadonlyPaths")
		case 3:
			put(in, false, "OCI", "Process", "NoNewPrivileges")
		case 4:
			put(in, object{"AdditionalGids": []any{}, "GID": json.Number("0"), "UID": json.Number("0"), "Username": ""}, "OCI", "Process", "User")
		case 5:
			put(in, object{"Prestart": []any{object{"Path": "/x", "Args": []any{}, "Env": []any{}, "Timeout": 0}}, "Poststart": []any{}, "Poststop": []any{}, "CreateRuntime": []any{}, "CreateContainer": []any{}, "StartContainer": []any{}}, "OCI", "Hooks")
		case 6:
			put(in, object{"kernel.core_pattern": "|/x"}, "OCI", "Linux", "Sysctl")
		case 7:
			put(in, []string{"localhost", "x", "books"}[s.From%3], "OCI", "Hostname")
		}
	})
}

// storageMore brings a storage that the manifest does not have.
func storageMore(p *pod, es []event, s step) []event {
	return p.edit(es, pick(es, s.At, ofKind("CreateContainerRequest", "CreateSandboxRequest")), func(in object) {
		root := str(at(in, "OCI", "Root", "Path"))
		storage := object{
			"driver": []string{"", "blk", "virtio-fs", "overlayfs", "image_guest_pull", "ephemeral", "local", "watchable-bind", "$(block)"}[s.Item%9], "driver_options": []any{},
			"source": []string{"none", "02/01", "registry.example/x", "$(device)", "tmpfs"}[s.From%5], "fstype": []string{"bind", "ext4", "tmpfs", "overlay"}[s.From/5%4],
			"options": []any{}, "mount_point": []string{root, "/etc", "/run/kata-containers/sandbox/shm", "$(root)"}[s.Item/9%4], "fs_group": nil, "shared": s.Item%2 == 0,
		}
		in["storages"] = append(slices.Clone(list(in["storages"])), storage)
	})
}
