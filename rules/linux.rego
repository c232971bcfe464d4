# What a container sees of the guest kernel.
package agent_policy

import rego.v1

linux_ok if {
	resources_ok(input.OCI.Linux.Resources)
	control_group_ok
	linux_devices_ok
}

# Shares, quotas and limits are the host's, but not which CPUs, nor real time, nor
# what no kubelet sets.
resources_ok(r) if {
	object.subset(r, {"BlockIO": null, "Network": null, "Pids": null})

	# item: OCI.Linux.Resources.{item}
	# wanted: none
	# got: {object.get(r, split(item, "."), null)}
	count({sprintf("%s.%s", [key, name]) | some key in ["CPU", "Memory"]; value := r[key][name]; not value in {0, "", false}} - {"CPU.Period", "CPU.Quota", "CPU.Shares", "Memory.Limit", "Memory.Swap"}) == 0

	# item: OCI.Linux.Resources.HugepageLimits[{h.Pagesize}]
	# wanted: a size of pages
	# got: {h.Pagesize}
	every h in r.HugepageLimits {
		regex.match(`^[0-9]+[KMG]B$`, h.Pagesize)
	}
}

# /kubepods/…/<id>, or slice:prefix:<id> where systemd keeps the tree.
#
# wanted: /path/id or slice:prefix:id of letters, digits and /:._-, no ..
control_group_ok if {
	path := input.OCI.Linux.CgroupsPath
	regex.match(`^(?:/|[0-9A-Za-z_.-]+:)[0-9A-Za-z_/:.-]*$`, path)
	not contains(path, "..")
	control_group_free(regex.replace(path, "^.*[/:]", ""))
}

control_group_ok if {
	policy.strict.container_id == "free"
	input.OCI.Linux.CgroupsPath == ""
}

# The group of this container, or at least of no other and of no unit of the guest.
control_group_free(id) if id == root_id

control_group_free(id) if {
	regex.match(`^[0-9a-f]{64}$`, id)
	not name_of(id)
}

linux_devices_ok if {
	# where
	[input.OCI.Linux.Devices, container.devices] == [[], []]
}

linux_devices_ok if {
	# at: OCI.Linux.Devices
	sort([d.Path | some d in input.OCI.Linux.Devices]) == sort(container.devices)

	# item: OCI.Linux.Devices[{d.Path}]
	every d in input.OCI.Linux.Devices {
		d.Type in {"b", "c"}
	}
}

linux_devices_ok if {
	policy.strict.mounts == "optional"
	input.OCI.Linux.Devices == []
}

# Each of the policy's and no other, without a path: but for the pod's network, one
# at most, where the forwarder of peer pods has it.
namespaces_ok if {
	# where
	input.OCI.Linux.Namespaces == [{"Path": "", "Type": type} | some type in container.namespaces; type != "network"]
}

namespaces_ok if {
	# at: OCI.Linux.Namespaces[network]
	# wanted: the pod's own
	# got: {[n.Path | some n in input.OCI.Linux.Namespaces; n.Type == "network"]}
	[n.Path | some n in input.OCI.Linux.Namespaces; n.Type == "network"] in [[], ["/run/netns/podns"]]
	own := [n | some n in input.OCI.Linux.Namespaces; n.Type != "network"]
	types := [namespace_type(n) | some n in own]

	# item: OCI.Linux.Namespaces[{n.Type}]
	every n in own {
		# wanted: no such namespace
		# got: present
		namespace_type(n) in container.namespaces
		n.Path == ""
	}

	# item: OCI.Linux.Namespaces[{item}]
	# wanted: a namespace of its own
	# got: missing
	count({type | some type in container.namespaces} - {type | some type in types}) == 0

	# at: OCI.Linux.Namespaces
	types == container.namespaces
}

namespace_type(n) := object.get({"mnt": "mount"}, n.Type, n.Type)

network_namespace := concat("", [path | some {"Path": path, "Type": "network"} in input.OCI.Linux.Namespaces])

paths_ok if {
	# where
	wanted := policy.common.paths[container.paths]

	# where
	input.OCI.Linux.MaskedPaths == wanted.masked

	# where
	input.OCI.Linux.ReadonlyPaths == wanted.readonly
}

# In any order; a read-only path may be masked instead; more only where known.
paths_ok if {
	wanted := policy.common.paths[container.paths]
	masked := {path | some path in input.OCI.Linux.MaskedPaths}
	readonly := {path | some path in input.OCI.Linux.ReadonlyPaths}
	needed := {path | some path in wanted.masked}
	protected := needed | {path | some path in wanted.readonly}

	# item: OCI.Linux.MaskedPaths[{item}]
	# wanted: masked
	# got: missing
	count(needed - masked) == 0

	# item: OCI.Linux.ReadonlyPaths[{item}]
	# wanted: read-only
	# got: missing
	count((protected - needed) - (masked | readonly)) == 0

	# item: OCI.Linux.MaskedPaths[{path}]
	count({path | some path in input.OCI.Linux.MaskedPaths}) == count(input.OCI.Linux.MaskedPaths)

	# item: OCI.Linux.ReadonlyPaths[{path}]
	count({path | some path in input.OCI.Linux.ReadonlyPaths}) == count(input.OCI.Linux.ReadonlyPaths)

	# item: OCI.Linux.MaskedPaths[{path}]
	every path in masked - protected {
		extra_path_ok(wanted.optional, path)
	}

	# item: OCI.Linux.ReadonlyPaths[{path}]
	every path in readonly - protected {
		extra_path_ok(wanted.optional, path)
	}
}

# wanted: no such path
# got: present
extra_path_ok(_, _) if policy.strict.paths == "optional"

extra_path_ok(patterns, path) if {
	some pattern in patterns
	regex.match(pattern, path)
}

sysctl_ok if {
	# unknown: no such sysctl
	object.subset(object.union(container.sysctl.optional, container.sysctl.fixed), input.OCI.Linux.Sysctl)
	sysctl_complete
}

sysctl_complete if object.subset(input.OCI.Linux.Sysctl, container.sysctl.fixed)

sysctl_complete if policy.strict.sysctl == "optional"

# Agent devices: block devices of the manifest, one to one, and VFIO. Those that
# are hot-plugged have an annotation each; cold-plugged ones annotations alone.
devices_ok if {
	# where
	[input.devices, container.devices, container.vfio.count] == [[], [], 0]
}

devices_ok if {
	passed := [d | some d in input.devices; startswith(d.container_path, vfio_path)]
	plain := [d | some d in input.devices; not d in passed]

	# item: devices[{d.container_path}]
	every d in plain {
		# wanted: no such device
		# got: {d.type_}
		d.container_path in container.devices
		d.type_ in {"blk", "blk-ccw", "mmioblk", "nvdimm", "scsi"}
		d.options == []

		# wanted: a place of such a device in the guest
		# got: {d.vm_path}
		device_path_ok(d.type_, d.vm_path)
	}

	# item: devices[{item}]
	# wanted: a block device
	# got: missing
	count({path | some path in container.devices} - {d.container_path | some d in plain}) == 0

	# item: devices[{d.container_path}]
	count({d.container_path | some d in plain}) == count(plain)
	vfio_ok(passed)
}

# The agent takes the device number of whatever stands at the path.
device_path_ok(_, path) if path == ""

device_path_ok(type, path) if {
	name := object.get({"nvdimm": "pmem[0-9]", "scsi": "sd[a-z]"}, type, "vd[a-z]")
	regex.match(sprintf("^/dev/%s{1,3}$", [name]), path)
}

vfio_ok(devices) if {
	devices == []
	container.vfio.count == 0
}

vfio_ok(devices) if {
	# item: devices[{d.container_path}]
	every d in devices {
		number := trim_prefix(d.container_path, vfio_path)
		regex.match(`^[0-9]+$`, number)
		object.subset(d, {"id": sprintf("vfio%s", [number]), "type_": container.vfio.type, "vm_path": ""})
		count(d.options) > 0

		# at: devices[{d.container_path}].options
		# wanted: addresses on the PCI bus
		every option in d.options {
			regex.match(`^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]=[0-9a-f]{2}/[0-9a-f]{2}$`, option)
		}
	}
	cards := {trim_prefix(d.container_path, vfio_path) | some d in devices}

	# at: devices
	# wanted: {container.vfio.count} passed through, each with an annotation
	# got: {count(devices)}, with {count(vfio_annotated)} annotations
	vfio_complete(cards, count(devices))
}

vfio_complete(cards, n) if {
	count(cards) == n
	n in {0, container.vfio.count}
	count(cards - vfio_annotated) == 0
	count(vfio_annotated) == container.vfio.count
}

vfio_path := container.vfio.path if container.vfio.count > 0

else := "\u0000"

vfio_annotated := {trim_prefix(key, "cdi.k8s.io/vfio") | some key, _ in input.OCI.Annotations; startswith(key, "cdi.k8s.io/vfio")}
