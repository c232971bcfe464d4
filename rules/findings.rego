# Why a request was denied. Evaluated only then.
#
# A finding is one check that failed: the container of the policy it was held
# against, the check, where in the request, what the policy wants and what it got.
# It asks the same rules that decide. Values of variables are never shown.
package agent_policy

import rego.v1

findings.CreateContainerRequest contains finding if {
	not container
	finding := {
		"container": "", "check": "name", "path": "OCI.Annotations[io.kubernetes.cri.container-name]",
		"wanted": container_names, "got": container_name,
	}
}

findings.CreateContainerRequest contains finding if {
	container
	some check, place in create_places
	create_failed[check]
	finding := {
		"container": container_name, "check": check, "path": place[0],
		"wanted": object.get(create_wanted, check, null), "got": object.get(input, place[1], null),
	}
}

# Where each check looks: its name in a request, and the path to show, [""] for none.
create_places := {
	"type": ["OCI.Annotations[io.kubernetes.cri.container-type]", ["OCI", "Annotations", "io.kubernetes.cri.container-type"]],
	"plain": ["OCI", [""]],
	"id": ["OCI.Root", ["OCI", "Root"]],
	"instance": ["container_id", ["container_id"]],
	"order": ["container_id", [""]],
	"process": ["OCI.Process", [""]],
	"args": ["OCI.Process.Args", ["OCI", "Process", "Args"]],
	"capabilities": ["OCI.Process.Capabilities", ["OCI", "Process", "Capabilities"]],
	"linux devices": ["OCI.Linux.Devices", ["OCI", "Linux", "Devices"]],
	"namespaces": ["OCI.Linux.Namespaces", ["OCI", "Linux", "Namespaces"]],
	"paths": ["OCI.Linux.MaskedPaths", [""]],
	"sysctl": ["OCI.Linux.Sysctl", ["OCI", "Linux", "Sysctl"]],
	"stdio": ["stdin_port", ["stdin_port"]],
	"image": ["storages", [""]],
	"identity": ["OCI.Annotations[io.kubernetes.cri.sandbox-name]", [""]],
	"pod": ["OCI.Annotations", [""]],
	"annotations": ["OCI.Annotations", [""]],
	"devices": ["devices", ["devices"]],
	"storages": ["storages", [""]],
	"mounts": ["OCI.Mounts", [""]],
	"env": ["OCI.Process.Env", [""]],
}

create_wanted := {}
create_failed contains "type" if not type_ok

create_failed contains "plain" if not plain_ok

create_failed contains "id" if not id_ok

create_failed contains "instance" if not instance_ok

create_failed contains "order" if not order_ok

create_failed contains "process" if not process_ok

create_failed contains "args" if not args_ok

create_failed contains "capabilities" if not capabilities_ok

create_failed contains "linux devices" if not linux_ok

create_failed contains "namespaces" if not namespaces_ok

create_failed contains "paths" if not paths_ok

create_failed contains "sysctl" if not sysctl_ok

create_failed contains "stdio" if not stdio_ok

create_failed contains "image" if not image_ok

create_failed contains "identity" if not identity_ok

create_failed contains "pod" if not pod_ok

create_failed contains "annotations" if not annotations_ok

create_failed contains "devices" if not devices_ok

create_failed contains "storages" if not storages_ok

create_failed contains "mounts" if not mounts_ok

create_failed contains "env" if not env_ok(container, input.OCI.Process.Env, policy.strict.env)
