# Takes the place of policy.rego for policy_data in the shape that upstream's
# genpolicy writes: containers in a list, patterns and placeholders in values.
# What that shape cannot say takes upstream's habits, package policydata's
# StrictKata, except that every pattern is anchored at both ends.
package agent_policy

import rego.v1

upstream := data.agent_policy.policy_data

policy := {
	"version": 1,
	"order": "free",
	"containers": {upstream_name(c): true | some c in upstream.containers},
	"strict": {
		"annotations": "free",
		"container_id": "free",
		"env": "optional",
		"exec_env": "optional",
		"image": "free",
		"instances": "free",
		"lifecycle": "free",
		"mounts": "optional",
		"paths": "optional",
		"storages": "optional",
		"sysctl": "optional",
	},
	"sandbox": {
		"hostname": "",
		"name": object.get(upstream_pause, "io.kubernetes.cri.sandbox-name", "^[a-z0-9][a-z0-9.-]*$"),
		"namespace": object.get(upstream_pause, "io.kubernetes.cri.sandbox-namespace", ""),
		"pidns": false,
		"storages": upstream.sandbox.storages,
	},
	"common": {
		"annotations": {"patterns": {}, "keys": object.union_n([object.get(c, "runtime_anno_patterns", {}) | some c in upstream.containers])},
		"apparmor": ["", "cri-containerd.apparmor.d"],
		"bundle_path": upstream_id(object.get(upstream_pause, "io.katacontainers.pkg.oci.bundle_path", "/run/containerd/io.containerd.runtime.v2.task/k8s.io/$(bundle-id)")),
		"capabilities": {upstream_name(c): upstream_capability_sets(c.OCI.Process.Capabilities) | some c in upstream.containers},
		"env": {"names": {}, "whole": [anchored(upstream_pattern(p)) | some p in upstream.request_defaults.CreateContainerRequest.allow_env_regex]},
		"mounts": {"none": []},
		"oci_versions": [upstream.containers[0].OCI.Version],
		"paths": {upstream_name(c): {"masked": c.OCI.Linux.MaskedPaths, "readonly": c.OCI.Linux.ReadonlyPaths, "optional": []} | some c in upstream.containers},
		"root_path": upstream_id(upstream.common.root_path),
		"other_root_paths": [],
		"shared_sources": [],
		"shared_dirs": [trim_suffix(upstream.common.cpath, "(?:/passthrough)?")],
		"storage_dir": upstream.common.spath,
	},
	"requests": upstream_requests,
}

upstream_requests := {
	"allow": [],
	"arp": {
		"flags": 136,
		"forbidden_addresses": defaults.AddARPNeighborsRequest.forbidden_cidrs_regex,
		"forbidden_devices": defaults.AddARPNeighborsRequest.forbidden_device_names,
		"states": defaults.AddARPNeighborsRequest.allowed_states,
	},
	"close_stdin": defaults.CloseStdinRequest,
	"copy_file": [anchored(sprintf("%s.+", [replace(upstream_prefix(p), "$(bundle-id)", "[a-z0-9]{64}")])) | some p in defaults.CopyFileRequest],
	"exec": {
		"commands": object.get(defaults.ExecProcessRequest, "allowed_commands", []),
		"joined": [anchored(p) | some p in object.get(defaults.ExecProcessRequest, "regex", [])],
		"stdin": defaults.WriteStreamRequest,
		"terminal": true,
	},
	"get_diagnostic_data": object.get(defaults, "GetDiagnosticDataRequest", false),
	"interface": {
		"forbidden_hw_addrs": defaults.UpdateInterfaceRequest.forbidden_hw_addrs,
		"forbidden_names": defaults.UpdateInterfaceRequest.forbidden_names,
		"raw_flags": defaults.UpdateInterfaceRequest.allow_raw_flags,
	},
	"read_stream": defaults.ReadStreamRequest,
	"routes": {
		"forbidden_devices": defaults.UpdateRoutesRequest.forbidden_device_names,
		"forbidden_sources": defaults.UpdateRoutesRequest.forbidden_source_regex,
	},
	"update_ephemeral_mounts": defaults.UpdateEphemeralMountsRequest,
	"write_stream": defaults.WriteStreamRequest,
}

defaults := upstream.request_defaults

upstream_pause := upstream.containers[0].OCI.Annotations

container_names := object.keys(policy.containers)

upstream_name(c) := object.get(c.OCI.Annotations, "io.kubernetes.cri.container-name", "$sandbox")

upstream_id(text) := replace(text, "$(bundle-id)", "$(container-id)")

anchored(pattern) := sprintf("^(?:%s)$", [pattern])

upstream_prefix(text) := replace(replace(text, "$(sfprefix)", upstream.common.sfprefix), "$(cpath)", upstream.common.cpath)

upstream_pattern(text) := replace(replace(replace(replace(text, "$(ipv4_a)", upstream.common.ipv4_a), "$(ip_p)", upstream.common.ip_p), "$(svc_name_downward_env)", upstream.common.svc_name_downward_env), "$(dns_label)", upstream.common.dns_label)

upstream_capability_sets(sets) := {set: upstream_capabilities(names) | some set, names in sets}

upstream_capabilities(["$(default_caps)"]) := upstream.common.default_caps

upstream_capabilities(["$(privileged_caps)"]) := upstream.common.privileged_caps

upstream_capabilities(names) := names if not names in {["$(default_caps)"], ["$(privileged_caps)"]}

policy_container(name) := upstream_container(name, c, c.OCI.Process) if {
	some c in upstream.containers
	upstream_name(c) == name
}

upstream_container(name, c, process) := {
	"after": [],
	"annotations": {
		"fixed": {},
		"optional": {k: v | some k, v in c.OCI.Annotations; not startswith(v, "^")},
		"patterns": {k: anchored(v) | some k, v in c.OCI.Annotations; startswith(v, "^")},
	},
	"arg_matches": {format_int(i, 10): upstream_arg(arg) | some i, arg in object.get(process, "Args", [])},
	"args": [replace(arg, "$$", "$") | some arg in object.get(process, "Args", [])],
	"base_mounts": "none",
	"capabilities": name,
	"cwd": process.Cwd,
	"devices": [d.container_path | some d in c.devices; not upstream_vfio(d)],
	"env": upstream_env(object.get(process, "Env", [])),
	"exec": c.exec_commands,
	"image": {"also": [], "digest": "", "from": {true: "guest-pull", false: "host"}[upstream.cluster_config.guest_pull], "layers": [], "source": ""},
	"mounts": {m.destination: upstream_mount(m, c.OCI.Mounts) | some i, m in c.OCI.Mounts; upstream_last(i, m, c.OCI.Mounts)},
	"namespaces": [n.Type | some n in c.OCI.Linux.Namespaces],
	"no_new_privileges": process.NoNewPrivileges,
	"paths": name,
	"pidns": c.sandbox_pidns,
	"readonly_root": c.OCI.Root.Readonly,
	"stdin": false,
	"stop_signal": 15,
	"storages": c.storages,
	"sysctl": {"fixed": {}, "optional": object.get(c.OCI.Linux, "Sysctl", {})},
	"terminal": process.Terminal,
	"type": c.OCI.Annotations["io.kubernetes.cri.container-type"],
	"OCI": {
		"Annotations": {},
		"Process": {"User": object.union(process.User, {"AdditionalGids": sort(process.User.AdditionalGids)})},
	},
	"vfio": upstream_vfio_of([d | some d in c.devices; upstream_vfio(d)]),
}

upstream_last(i, mount, mounts) if count([1 | some j, other in mounts; other.destination == mount.destination; j > i]) == 0

upstream_mount(mount, mounts) := object.union(mount, {
	"from": "upstream",
	"sources": [other.source | some other in mounts; other.destination == mount.destination],
	"extra_options": upstream_extras(mount),
})

upstream_extras(mount) := upstream.cluster_config.cgroup_mount_extras_allowed if mount.type_ == "cgroup"

else := []

upstream_arg(arg) := {"pattern": "^(?s:.*)$"} if contains(arg, "$(node-name)")

upstream_arg(arg) := {"template": replace(arg, "$$", "$")} if {
	contains(arg, "$(sandbox-name)")
	not contains(arg, "$(node-name)")
}

upstream_env(env) := {
	"fixed": [entry | some entry in env; not contains(entry, "=$("); not contains(entry, "$(sandbox-namespace)")],
	"optional": {split(entry, "=")[0]: upstream_env_pattern(entry) | some entry in env},
	"patterns": {},
	"templates": {split(entry, "=")[0]: substring(entry, indexof(entry, "=") + 1, -1) | some entry in env; upstream_env_template(entry)},
}

upstream_env_template(entry) if endswith(entry, "=$(sandbox-name)")

upstream_env_template(entry) if contains(entry, "$(sandbox-namespace)")

upstream_env_pattern(entry) := anchored(upstream.common.ipv4_a) if regex.match(`=\$\((?:pod|host)-ip\)$`, entry)

upstream_env_pattern(entry) := "^[^=]*$" if regex.match(`\$\((?:host-name|node-name|pod-uid|resource-field|todo-annotation)\)`, entry)

upstream_vfio(device) if startswith(device.container_path, upstream.devices.vfio.device_path)

upstream_vfio_of(devices) := {"annotation": "", "count": 0, "path": "", "type": ""} if devices == []

upstream_vfio_of(devices) := {
	"annotation": "^[a-z0-9./-]+=[0-9]+$",
	"count": count(devices),
	"path": upstream.devices.vfio.device_path,
	"type": devices[0].type_,
} if {
	count(devices) > 0
}

# Alternatives for one destination; a pattern, a literal, or a block storage.
source_ok(wanted, source) if {
	wanted.from == "upstream"
	some text in wanted.sources
	upstream_source_ok(text, source)
}

upstream_source_ok("", source) if source in block_points

upstream_source_ok(text, source) if {
	text != ""
	text == source
}

upstream_source_ok(text, source) if {
	regex.match(`^(?:\^|\$\()`, text)
	regex.match(anchored(upstream_ids(upstream_prefix(text))), source)
}

# Ids have no character that is special in a pattern but the dot.
upstream_ids(text) := replace(replace(text, "$(bundle-id)", replace(root_id, ".", `\.`)), "$(sandbox-id)", pod.id)

# A policy that asks for a writable /sys accepts a read-only one.
options_ok(wanted, options) if {
	wanted.from == "upstream"
	wanted.type_ == "sysfs"
	options == [replaced | some option in wanted.options; replaced := {true: "ro", false: option}[option == "rw"]]
}

# Storages as upstream matches them, one to one and anchored.
storages_ok if {
	others := [storage | some storage in input.storages; storage.driver != "image_guest_pull"]
	count(others) == count(container.storages)
	every storage in others {
		literal_ok(storage)
		upstream_storage_ok(storage)
	}
}

upstream_storage_ok(storage) if {
	some wanted in container.storages
	object.remove(storage, upstream_free) == object.remove(wanted, upstream_free)
	wanted.driver == ""
	block_device(storage)
	storage.mount_point == device_point(storage)
}

upstream_storage_ok(storage) if {
	some wanted in container.storages
	object.remove(storage, upstream_free) == object.remove(wanted, upstream_free)
	wanted.driver == storage.driver
	upstream_text_ok(wanted.source, storage.source)
	upstream_text_ok(wanted.mount_point, storage.mount_point)
}

upstream_free := ["driver", "source", "mount_point"]

upstream_text_ok(wanted, text) if text == wanted

upstream_text_ok(wanted, text) if {
	regex.match(`^(?:\^|\$\()`, wanted)
	regex.match(anchored(upstream_ids(upstream_prefix(wanted))), text)
}
