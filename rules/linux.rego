# What a container sees of the guest kernel.
package agent_policy

import rego.v1

# Shares and quotas are the host's, but not which CPUs, nor real time.
cpu_ok if object.subset(input.OCI.Linux.Resources.CPU, {"Cpus": "", "Mems": "", "RealtimePeriod": 0, "RealtimeRuntime": 0})

cpu_ok if input.OCI.Linux.Resources.CPU == null

# /kubepods/…/<id>, or slice:prefix:<id> where systemd keeps the tree.
control_group_ok if {
	regex.match(`^((/|[0-9A-Za-z_.-]+:)[0-9A-Za-z_/:.-]*)?$`, input.OCI.Linux.CgroupsPath)
	not contains(input.OCI.Linux.CgroupsPath, "..")
}

linux_devices_ok if {
	input.OCI.Linux.Devices == []
	policy.strict.mounts == "optional"
}

linux_devices_ok if {
	paths := [d.Path | some d in input.OCI.Linux.Devices]
	sort(paths) == sort(container.devices)
	count(paths) == count(input.OCI.Linux.Devices)
	every d in input.OCI.Linux.Devices {
		d.Type in {"b", "c"}
	}
}

# One network namespace at most; it is the pod's, see pod_ok.
namespaces_ok if input.OCI.Linux.Namespaces == own_namespaces

namespaces_ok if {
	network_namespace
	own_namespaces == [object.union(n, {"Type": object.get({"mnt": "mount"}, n.Type, n.Type)}) |
		some n in input.OCI.Linux.Namespaces
		not n.Type in {"network", "cgroup"}
	]
}

own_namespaces := [{"Path": "", "Type": type} | some type in container.namespaces]

network_namespace := concat("", paths) if {
	paths := [n.Path | some n in input.OCI.Linux.Namespaces; n.Type == "network"]
	count(paths) <= 1
}

paths_ok if {
	wanted := policy.common.paths[container.paths]
	input.OCI.Linux.MaskedPaths == wanted.masked
	input.OCI.Linux.ReadonlyPaths == wanted.readonly
}

# In any order; a read-only path may be masked instead; more only where known.
paths_ok if {
	wanted := policy.common.paths[container.paths]
	masked := {path | some path in input.OCI.Linux.MaskedPaths}
	readonly := {path | some path in input.OCI.Linux.ReadonlyPaths}
	count(masked) == count(input.OCI.Linux.MaskedPaths)
	count(readonly) == count(input.OCI.Linux.ReadonlyPaths)
	needed := {path | some path in wanted.masked}
	protected := needed | {path | some path in wanted.readonly}
	count(needed - masked) == 0
	count(protected - (masked | readonly)) == 0
	every path in (masked | readonly) - protected {
		extra_path_ok(wanted.optional, path)
	}
}

extra_path_ok(_, _) if policy.strict.paths == "optional"

extra_path_ok(patterns, path) if {
	some pattern in patterns
	regex.match(pattern, path)
}

sysctl_ok if input.OCI.Linux.Sysctl == container.sysctl.fixed

sysctl_ok if {
	object.subset(object.union(container.sysctl.optional, container.sysctl.fixed), input.OCI.Linux.Sysctl)
	sysctl_complete
}

sysctl_complete if object.subset(input.OCI.Linux.Sysctl, container.sysctl.fixed)

sysctl_complete if policy.strict.sysctl == "optional"

# Agent devices: block devices of the manifest, one to one, and VFIO. Those that
# are hot-plugged have an annotation each; cold-plugged ones annotations alone.
devices_ok if {
	input.devices == []
	container.devices == []
	container.vfio.count == 0
}

devices_ok if {
	plain := [d | some d in input.devices; not startswith(d.container_path, vfio_path)]
	sort([d.container_path | some d in plain]) == sort(container.devices)
	count(plain) == count(container.devices)
	every d in plain {
		d.type_ in {"blk", "blk-ccw", "mmioblk", "nvdimm", "scsi"}
		d.options == []
	}
	vfio := [d | some d in input.devices; startswith(d.container_path, vfio_path)]
	count(plain) + count(vfio) == count(input.devices)
	every d in vfio {
		number := trim_prefix(d.container_path, vfio_path)
		regex.match(`^[0-9]+$`, number)
		object.subset(d, {"id": concat("", ["vfio", number]), "type_": container.vfio.type, "vm_path": ""})
		count(d.options) > 0
		every option in d.options {
			regex.match(`^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]=[0-9a-f]{2}/[0-9a-f]{2}$`, option)
		}
	}
	numbers := {trim_prefix(d.container_path, vfio_path) | some d in vfio}
	count(numbers) == count(vfio)
	count(numbers) in {0, container.vfio.count}
	count(numbers - vfio_annotated) == 0
	count(vfio_annotated) == container.vfio.count
}

vfio_path := container.vfio.path if container.vfio.count > 0

else := "\u0000"

vfio_annotated := {trim_prefix(key, "cdi.k8s.io/vfio") | some key, _ in input.OCI.Annotations; startswith(key, "cdi.k8s.io/vfio")}
