# CreateContainer: one of the policy's containers, and nothing of it may differ.
# The container is found by its name; checks that cost little come first.
#
# A check is a rule named <check>_ok. Why a request was denied is read off the
# conditions that failed: package findings says how, and which comments word what
# a condition alone does not say.
package agent_policy

import rego.v1

CreateContainerRequest := {"allowed": true, "ops": create_ops} if {
	name_ok
	instance_ok
	order_ok
	type_ok
	plain_ok
	propagation_ok
	id_ok
	process_ok
	args_ok
	capabilities_ok
	stdio_ok
	linux_ok
	devices_ok
	paths_ok
	namespaces_ok
	sysctl_ok
	identity_ok
	pod_ok
	sandbox_ok
	annotations_ok
	image_ok
	storages_ok
	mounts_ok
	contents_ok
	env_ok(container, input.OCI.Process.Env, policy.strict.env)
}

# one of: container_names
name_ok if policy.containers[container_name]

# of the policy
container := policy_container(container_name)

container_name := object.get(input.OCI.Annotations, "io.kubernetes.cri.container-name", "$sandbox")

type_ok if {
	# wanted: none of that name
	not input.OCI.Annotations["io.kubernetes.cri.container-name"] == "$sandbox"
	input.OCI.Annotations["io.kubernetes.cri.container-type"] == container.type
	input.OCI.Annotations["io.katacontainers.pkg.oci.container_type"] == sprintf("pod_%s", [container.type])
	input.sandbox_pidns == container.pidns
}

# What none may ask for: code of the host's (hooks), other platforms, profiles and
# mappings that no manifest can express.
plain_ok if {
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
				"Seccomp": null,
			},
		},
	})
	linux := input.OCI.Linux
	[input.shared_mounts, input.OCI.Process.Rlimits, linux.UIDMappings, linux.GIDMappings, linux.Resources.Devices] == [[], [], [], [], []]
}

# The root spreads mounts as far as a mount of the container does.
propagation_ok if input.OCI.Linux.RootfsPropagation == ""

propagation_ok if {
	some m in container.mounts
	input.OCI.Linux.RootfsPropagation in m.extra_options
}

# The id in the root path is the container's id.
id_ok if {
	input.OCI.Root.Readonly == container.readonly_root
	input.OCI.Root.Path == replace(root_path, "$(container-id)", root_id)
	container_id_ok(root_id)
	same_id
}

# runtime-rs sends no exec_id
same_id if {
	input.container_id == root_id
	input.exec_id in {"", root_id}
}

same_id if {
	policy.strict.container_id == "free"
	input.container_id in {"", root_id}
}

root_id := input.container_id if input.OCI.Root.Path == replace(root_path, "$(container-id)", input.container_id)

else := trim_suffix(trim_prefix(input.OCI.Root.Path, around[0]), around[1]) if {
	around := split(root_path, "$(container-id)")
	startswith(input.OCI.Root.Path, around[0])
	endswith(input.OCI.Root.Path, around[1])
}

else := input.container_id

# Where this runtime puts root file systems.
root_path := path if {
	some path in policy.common.other_root_paths
	startswith(input.OCI.Root.Path, split(path, "$(container-id)")[0])
}

else := policy.common.root_path

# Who the pod is. pod_ok holds every later container to it.
pod := {
	"id": annotations["io.kubernetes.cri.sandbox-id"],
	"name": annotations["io.kubernetes.cri.sandbox-name"],
	"namespace": annotations["io.kubernetes.cri.sandbox-namespace"],
	"network": network_namespace,
	"uid": object.get(annotations, "io.kubernetes.cri.sandbox-uid", ""),
} if {
	annotations := input.OCI.Annotations
}

identity_ok if {
	regex.match(policy.sandbox.name, pod.name)

	namespace_ok
	regex.match(`^[a-z0-9][a-z0-9-]*$`, pod.namespace)
	regex.match(`^[0-9a-f]{64}$`, pod.id)

	# wanted: a uid, or nothing
	uid_ok(pod.uid)
	input.OCI.Annotations["io.katacontainers.pkg.oci.bundle_path"] == replace(policy.common.bundle_path, "$(container-id)", root_id)
	hostname_ok
	log_directory_ok
}

# wanted: {policy.sandbox.namespace}
namespace_ok if policy.sandbox.namespace in {"", pod.namespace}

# wanted: {hostname_wanted}
hostname_ok if input.OCI.Hostname == ""

hostname_ok if input.OCI.Hostname == hostname

hostname_ok if regex.match(policy.sandbox.hostname, input.OCI.Hostname)

hostname := trim_right(substring(pod.name, 0, 63), "-.") if policy.sandbox.hostname == "$(sandbox-name)"

else := ""

# at: OCI.Annotations[io.kubernetes.cri.sandbox-log-directory]
# wanted: /var/log/pods/{pod.namespace}_{pod.name}_{pod.uid} or in another directory, for the sandbox alone
log_directory_ok if not input.OCI.Annotations["io.kubernetes.cri.sandbox-log-directory"]

log_directory_ok if {
	container.type == "sandbox"
	[directory, uid] := split(input.OCI.Annotations["io.kubernetes.cri.sandbox-log-directory"], sprintf("%s_%s_", [pod.namespace, pod.name]))
	regex.match(`^(/[0-9A-Za-z_.-]+)+/$`, directory)
	uid_ok(uid)
	pod.uid in {"", uid}
}

# Of a pod that the node has from a file the uid has no dashes; some runtimes send none.
uid_ok(uid) if regex.match(`^(?:[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12})?$`, uid)

annotations_ok if {
	fixed_annotations_ok

	# those that no other check covers
	others := object.remove(object.remove(input.OCI.Annotations, container.annotations.fixed), {
		"io.katacontainers.pkg.oci.bundle_path",
		"io.katacontainers.pkg.oci.container_type",
		"io.kubernetes.cri.container-name",
		"io.kubernetes.cri.container-type",
		"io.kubernetes.cri.image-name",
		"io.kubernetes.cri.sandbox-id",
		"io.kubernetes.cri.sandbox-log-directory",
		"io.kubernetes.cri.sandbox-name",
		"io.kubernetes.cri.sandbox-namespace",
		"io.kubernetes.cri.sandbox-uid",
	})

	# item: OCI.Annotations[{key}]
	every key, value in others {
		annotation_ok(key, value)
	}
}

fixed_annotations_ok if object.subset(input.OCI.Annotations, container.annotations.fixed)

fixed_annotations_ok if {
	policy.strict.annotations != "required"

	# item: OCI.Annotations[{key}]
	every key, value in container.annotations.fixed {
		object.get(input.OCI.Annotations, key, value) == value
	}
}

# wanted: {annotation_wanted(key)}
annotation_ok(key, value) if regex.match(policy.common.annotations.patterns[key], value)

annotation_ok(key, value) if container.annotations.optional[key] == value

annotation_ok(key, value) if regex.match(container.annotations.patterns[key], value)

annotation_ok(key, value) if {
	some key_pattern, pattern in policy.common.annotations.keys
	regex.match(key_pattern, key)
	regex.match(pattern, value)
}

annotation_ok(key, value) if {
	container.vfio.count > 0
	regex.match(`^cdi\.k8s\.io/vfio[0-9]+$`, key)
	regex.match(container.vfio.annotation, value)
}

annotation_ok(key, _) if {
	policy.strict.annotations == "free"
	startswith(key, "io.kubernetes.cri.")
}
