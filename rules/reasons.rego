# Why a request was denied. Evaluated only then, and not part of the policy: these
# rules ask those that decide, and decide nothing.
#
# A finding is one check that failed: the container of the policy that the request
# was held against, the check, where in the request, what the policy wants and what
# it got. Values of variables are never shown.
package agent_policy

import rego.v1

reasons.CreateContainerRequest contains finding.text if some finding in findings.CreateContainerRequest

reasons.ExecProcessRequest contains finding.text if some finding in findings.ExecProcessRequest

reasons.CreateSandboxRequest contains finding.text if some finding in findings.CreateSandboxRequest

reasons.CopyFileRequest contains finding.text if some finding in findings.CopyFileRequest

reasons.StartContainerRequest contains no_container if not known_container

reasons.SignalProcessRequest contains no_container if not known_container

reasons.StatsContainerRequest contains no_container if not known_container

reasons.TtyWinResizeRequest contains no_container if not known_container

reasons.WaitProcessRequest contains no_container if not known_container

reasons.RemoveContainerRequest contains no_container if not known_container

reasons.ReadStreamRequest contains no_container if not known_container

reasons.ReadStreamRequest contains "output is not open to the host: requests.read_stream" if not policy.requests.read_stream

reasons.WriteStreamRequest contains no_container if not known_container

reasons.WriteStreamRequest contains "stdin is not open to the host: containers[].stdin, requests.exec.stdin" if not stdin_allowed

reasons.CloseStdinRequest contains no_container if not known_container

reasons.CloseStdinRequest contains "stdin is not open to the host: containers[].stdin, requests.close_stdin" if not closing_allowed

reasons.UpdateInterfaceRequest contains "name, address or flags of the interface are not allowed: requests.interface" if not UpdateInterfaceRequest

reasons.UpdateRoutesRequest contains "device, source or destination of a route is not allowed: requests.routes" if not UpdateRoutesRequest

reasons.AddARPNeighborsRequest contains "device, address, state or flags of a neighbor are not allowed: requests.arp" if not AddARPNeighborsRequest

no_container := concat(" ", ["no container has the id", shown(input.container_id)])

# One finding, with its sentence.
finding(name, check, path, values) := {
	"container": name, "check": check, "path": path, "wanted": values[0], "got": values[1],
	"text": concat("", [prefix, check, ": ", path, " is ", shown(values[1]), ", wanted ", shown(values[0])]),
} if {
	prefix := concat("", [name, ": "])
}

# Short, and on one line.
shown(value) := text if {
	text := json.marshal(value)
	count(text) <= 160
} else := concat("", [substring(json.marshal(value), 0, 160), "…"])

# CreateContainer

findings.CreateContainerRequest contains finding("?", "name", "OCI.Annotations[io.kubernetes.cri.container-name]", [container_names, container_name]) if not container

findings.CreateContainerRequest contains finding(container_name, check, path, values) if {
	container
	some check, [path, values] in failed_checks
}

findings.CreateContainerRequest contains found if {
	container
	some found in detailed
}

failed_checks.type := ["OCI.Annotations[io.kubernetes.cri.container-type]", [container.type, input.OCI.Annotations["io.kubernetes.cri.container-type"]]] if not create_type_ok

failed_checks.plain := ["OCI", ["no hooks, mappings, profiles, limits or device rules of the host's", "some"]] if not create_plain_ok

failed_checks.id := ["OCI.Root", [{"Path": policy.common.root_path, "Readonly": container.readonly_root}, input.OCI.Root]] if not create_id_ok

failed_checks.instance := ["container_id", ["a container that does not exist yet", input.container_id]] if not instance_ok

failed_checks.order := ["container_id", [container.after, "not yet"]] if not order_ok

failed_checks.process := ["OCI.Process", [object.filter(wanted_process, differing), object.filter(input.OCI.Process, differing)]] if {
	not create_process_ok
	differing := {key | some key, value in wanted_process; input.OCI.Process[key] != value}
}

wanted_process := {"Terminal": container.terminal, "Cwd": container.cwd, "NoNewPrivileges": container.no_new_privileges, "User": container.user}

failed_checks.version := ["OCI.Version", [policy.common.oci_versions, input.OCI.Version]] if not input.OCI.Version in policy.common.oci_versions

failed_checks.apparmor := ["OCI.Process.ApparmorProfile", [policy.common.apparmor, input.OCI.Process.ApparmorProfile]] if not input.OCI.Process.ApparmorProfile in policy.common.apparmor

failed_checks.args := ["OCI.Process.Args", [container.args, input.OCI.Process.Args]] if not args_ok

failed_checks.capabilities := ["OCI.Process.Capabilities", [container.capabilities, {set: extra |
	some set, names in policy.common.capabilities[container.capabilities]
	extra := {name | some name in input.OCI.Process.Capabilities[set]} - {name | some name in names}
}]] if not capabilities_ok

failed_checks.linux := ["OCI.Linux", [{"devices": container.devices}, object.filter(input.OCI.Linux, {"Devices", "CgroupsPath"})]] if not create_linux_ok

failed_checks.namespaces := ["OCI.Linux.Namespaces", [container.namespaces, input.OCI.Linux.Namespaces]] if not namespaces_ok

failed_checks.paths := ["OCI.Linux.MaskedPaths, ReadonlyPaths", [
	{path | some path in policy.common.paths[container.paths].masked} - {path | some path in input.OCI.Linux.MaskedPaths},
	{path | some path in input.OCI.Linux.MaskedPaths} - {path | some path in policy.common.paths[container.paths].masked},
]] if not paths_ok

failed_checks.sysctl := ["OCI.Linux.Sysctl", [container.sysctl, input.OCI.Linux.Sysctl]] if not sysctl_ok

failed_checks.stdio := ["stdin_port, stdout_port, stderr_port", [0, [input.stdin_port, input.stdout_port, input.stderr_port]]] if not stdio_ok

failed_checks["image name"] := ["OCI.Annotations[io.kubernetes.cri.image-name]", [container.image.annotation, object.get(input.OCI.Annotations, "io.kubernetes.cri.image-name", "")]] if not image_annotation_ok

failed_checks["image pull"] := ["storages", [{"driver": container.image.from, "source": container.image.source, "mount_point": input.OCI.Root.Path}, [object.filter(pull, {"source", "mount_point"}) | some pull in pulls]]] if not image_pull_ok

failed_checks.identity := ["OCI.Annotations[io.kubernetes.cri.sandbox-name]", [{"name": policy.sandbox.name, "namespace": policy.sandbox.namespace}, pod]] if not identity_ok

failed_checks.pod := ["OCI.Annotations", [data.pstate.pod, pod]] if not pod_ok

failed_checks.devices := ["devices", [{"devices": container.devices, "vfio": container.vfio.count}, [device.container_path | some device in input.devices]]] if not devices_ok

failed_checks.storages := ["storages", [[object.filter(storage, {"driver", "mount_point", "options"}) | some storage in container.storages], [object.filter(storage, {"driver", "mount_point", "options"}) | some storage in input.storages; storage.driver != "image_guest_pull"]]] if not storages_ok

# Annotations, mounts and variables, one by one.
detailed contains finding(container_name, "annotations", concat("", ["OCI.Annotations[", key, "]"]), [value, object.get(input.OCI.Annotations, key, null)]) if {
	not fixed_annotations_ok
	some key, value in container.annotations.fixed
	object.get(input.OCI.Annotations, key, null) != value
}

detailed contains finding(container_name, "annotations", concat("", ["OCI.Annotations[", key, "]"]), [object.get(known_annotations, key, null), value]) if {
	some key, value in other_annotations
	not annotation_ok(key, value)
}

known_annotations := object.union_n([policy.common.annotations.patterns, container.annotations.optional, container.annotations.patterns])

detailed contains finding(container_name, "mounts", concat("", ["OCI.Mounts[", mount.destination, "]"]), [object.get(wanted_mounts, mount.destination, null), mount]) if {
	not mounts_ok
	some mount in input.OCI.Mounts
	not mount_known(mount)
}

mount_known(mount) if mount_ok(wanted_mounts[mount.destination], mount)

detailed contains finding(container_name, "mounts", concat("", ["OCI.Mounts[", destination, "]"]), [wanted, null]) if {
	policy.strict.mounts != "optional"
	some destination, wanted in wanted_mounts
	not wanted.optional
	count([1 | some mount in input.OCI.Mounts; mount.destination == destination]) == 0
}

detailed contains finding(container_name, "mounts", concat("", ["OCI.Mounts[", mount.destination, "]"]), ["one", "more"]) if {
	not mounts_ok
	some mount in input.OCI.Mounts
	count([1 | some other in input.OCI.Mounts; other.destination == mount.destination]) > 1
}

detailed contains finding(container_name, "mounts", "OCI.Mounts", ["a storage for each volume", "one for several"]) if not volumes_ok

detailed contains finding(container_name, "env", path, values) if {
	some [path, values] in env_findings(container, "OCI.Process.Env", input.OCI.Process.Env, policy.strict.env)
}

# Variables by name, without their values.
env_findings(c, at, env, level) := (unknown | missing) | twice if {
	name_count := {name: n |
		some entry in env
		name := split(entry, "=")[0]
		n := count([1 | some other in env; split(other, "=")[0] == name])
	}
	twice := {[concat("", [at, "[", name, "]"]), ["once", n]] | some name, n in name_count; n > 1}
	fixed := {split(entry, "=")[0] | some entry in c.env.fixed}
	missing := {[concat("", [at, "[", name, "]"]), ["there", "missing"]] |
		level == "required"
		some name in (fixed | env_needed(c))
		not name_count[name]
	}
	unknown := {[concat("", [at, "[", name, "]"]), [wanted, got]] |
		some entry in env
		name := split(entry, "=")[0]
		not env_ok(object.union(c, {"env": object.union(c.env, {"fixed": own_fixed(c, name)})}), [entry], "optional")
		[wanted, got] := {true: ["its value in the policy", "another value"], false: ["no such variable", "there"]}[name in (fixed | env_names(c))]
	}
}

env_needed(c) := object.keys(c.env.patterns) | object.keys(c.env.templates)

env_names(c) := env_needed(c) | object.keys(c.env.optional)

own_fixed(c, name) := [entry | some entry in c.env.fixed; split(entry, "=")[0] == name]

# ExecProcess

findings.ExecProcessRequest contains finding("?", "container", "container_id", ["a container that exists", input.container_id]) if not exec_container

findings.ExecProcessRequest contains finding(name_of(input.container_id), check, path, values) if {
	exec_container
	some check, [path, values] in failed_exec_checks
}

findings.ExecProcessRequest contains finding(name_of(input.container_id), "env", path, values) if {
	exec_container
	some [path, values] in env_findings(exec_container, "process.Env", input.process.Env, policy.strict.exec_env)
}

failed_exec_checks.args := ["process.Args", [array.concat(exec_container.exec, policy.requests.exec.commands), input.process.Args]] if not exec_command_ok

failed_exec_checks.process := ["process", [
	{"Cwd": exec_container.cwd, "NoNewPrivileges": exec_container.no_new_privileges, "User": exec_container.user, "Capabilities": null},
	object.filter(input.process, {"Cwd", "NoNewPrivileges", "User", "Capabilities"}),
]] if not exec_process_ok

failed_exec_checks.stdio := ["exec_id, stdin_port, stdout_port, stderr_port", ["an id of its own, no ports", [input.exec_id, input.stdin_port, input.stdout_port, input.stderr_port]]] if not exec_stdio_ok

# CreateSandbox

findings.CreateSandboxRequest contains finding(sandbox, check, path, values) if {
	sandbox := "$sandbox"
	some check, [path, values] in failed_sandbox_checks
}

failed_sandbox_checks.once := ["sandbox_id", ["no sandbox yet", input.sandbox_id]] if not sandbox_once_ok

failed_sandbox_checks.plain := ["guest_hook_path, kernel_modules, sandbox_pidns", [["", [], policy.sandbox.pidns], [input.guest_hook_path, input.kernel_modules, input.sandbox_pidns]]] if not sandbox_plain_ok

failed_sandbox_checks.id := ["sandbox_id", ["64 letters and digits", input.sandbox_id]] if not sandbox_id_ok

failed_sandbox_checks.hostname := ["hostname", [policy.sandbox.hostname, input.hostname]] if not sandbox_hostname_ok

failed_sandbox_checks.storages := ["storages", [policy.sandbox.storages, input.storages]] if not sandbox_storages_ok

# CopyFile

findings.CopyFileRequest contains finding("", "path", "path", [policy.requests.copy_file, input.path]) if not copy_path_ok

findings.CopyFileRequest contains finding("", "type", "file_type", [["Regular", "Directory", "Symlink"], input.file_type]) if not input.file_type in {"Regular", "Directory", "Symlink"}

findings.CopyFileRequest contains finding("", "content", "data_sha256", [object.get(policy.files, [copy_volume, copy_key], null), object.get(input, "data_sha256", null)]) if {
	input.file_type == "Regular"
	copy_path_ok
	not copy_content_ok
}

findings.CopyFileRequest contains finding("", "mode", "file_mode", ["no set-id bits", input.file_mode]) if {
	input.file_type == "Regular"
	bits.and(input.file_mode, 3072) != 0
}

findings.CopyFileRequest contains finding("", "link", "symlink_target", ["a path inside the volume, below its top", input.symlink_target]) if {
	input.file_type == "Symlink"
	copy_path_ok
	not CopyFileRequest
}

# The checks of CreateContainer, each by itself and under the name that findings
# have. They allow what CreateContainerRequest allows.
CreateContainerChecks if {
	create_type_ok
	create_plain_ok
	create_id_ok
	instance_ok
	order_ok
	create_process_ok
	args_ok
	capabilities_ok
	create_linux_ok
	namespaces_ok
	paths_ok
	sysctl_ok
	stdio_ok
	image_ok
	identity_ok
	pod_ok
	annotations_ok
	devices_ok
	storages_ok
	mounts_ok
	env_ok(container, input.OCI.Process.Env, policy.strict.env)
}

create_type_ok if {
	type_ok
	input.sandbox_pidns == container.pidns
}

create_plain_ok if {
	object.subset(input, {
		"string_user": null,
		"OCI": {
			"Hooks": null,
			"Solaris": null,
			"Windows": null,
			"Process": {"SelinuxLabel": ""},
			"Linux": {
				"IntelRdt": null,
				"MountLabel": "",
				"RootfsPropagation": "",
				"Seccomp": null,
				"Resources": {"BlockIO": null, "Network": null, "Pids": null},
			},
		},
	})
	input.shared_mounts == []
	input.OCI.Process.Rlimits == []
	input.OCI.Linux.UIDMappings == []
	input.OCI.Linux.GIDMappings == []
	input.OCI.Linux.Resources.Devices == []
}

create_id_ok if {
	id_ok
	input.OCI.Root.Readonly == container.readonly_root
}

create_process_ok if {
	process_ok
	object.subset(input.OCI.Process, object.remove(wanted_process, {"User"}))
}

create_linux_ok if {
	cpu_ok
	control_group_ok
	linux_devices_ok
}
