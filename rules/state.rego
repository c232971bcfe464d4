# State: what happened so far. It lives at data.pstate, as a flat object:
#
#   pod                 what the first container said of the pod: name, namespace, …
#   sandbox             id given to CreateSandbox
#   container:<id>      name of the container with that id
#   running:<name>      id of the container with that name
#   started:<name>      true once it was started
#   runs:<name>         true while it runs, false once its process has ended or it was removed, null once it is created again
#   signalled:<name>    true once the host sent its process a signal, false once it is created again
#   succeeded:<name>    once its process ended with exit code 0: true without a signal, else false
#   device:<id>:<volume>:<mount point>  a block storage of the volume, while the container with that id exists; without an
#                       id where the agent keeps the storage as long as the pod is there
#   copied:<path>       what was copied there, see contents.rego
#
# The host chooses ids, but the prefix decides what a key means, and an id has no
# character that is special in a JSON pointer.
package agent_policy

import rego.v1

name_of(id) := data.pstate[sprintf("container:%s", [id])]

was(kind, name) := data.pstate[sprintf("%s:%s", [kind, name])]

# The name of a container, or one that is escaped.
put(kind, name, value) := {"op": "add", "path": sprintf("/pstate/%s:%s", [kind, name]), "value": value}

# in a JSON pointer
escaped(key) := replace(replace(key, "~", "~0"), "/", "~1")

# The container that a request is about, where it exists.
named contains name_of(input.container_id)

# says: no container has the id {shown(input.container_id)}
container_ok if name_of(input.container_id)

container_ok if policy.strict.lifecycle == "free"

safe_id(id) if regex.match(`^[0-9a-z][0-9A-Za-z._-]{0,127}$`, id)

# A container's id can be no name of a directory of the agent.
container_id_ok(id) if regex.match(`^[0-9a-f]{64}$`, id)

# Requests that are written by hand for tests name a container by what it is called.
container_id_ok(id) if {
	policy.strict.container_id == "free"
	id == container_name
	regex.match(`^[a-z0-9]{1,15}$`, id)
	not id in {"image", "local", "passthrough", "rootfs", "sandbox", "shared", "virtiofs", "watchable"}
}

# says: no container has the id {shown(input.container_id)}, or it was never started
started_ok if is_boolean(was("runs", name_of(input.container_id)))

started_ok if policy.strict.lifecycle == "free"

# Containers are made in the sandbox that was.
#
# at: OCI.Annotations[io.kubernetes.cri.sandbox-id]
# wanted: the sandbox that CreateSandbox made
# got: {pod.id}
sandbox_ok if data.pstate.sandbox in {"", pod.id}

sandbox_ok if policy.strict.lifecycle == "free"

# An id and a name are free, the first time or after RemoveContainer.
instance_ok if {
	# wanted: an id that is free
	not name_of(input.container_id)

	# at: OCI.Annotations[io.kubernetes.cri.container-name]
	# wanted: a container that does not exist yet
	# got: {container_name}, which exists
	not was("running", container_name)
}

instance_ok if {
	policy.strict.instances == "free"
	not name_of(input.container_id) != container_name
}

# What the containers of a pod share does not change from one to the next.
pod_ok if not data.pstate.pod

pod_ok if data.pstate.pod == pod

order_ok if policy.order == "free"

order_ok if {
	policy.order == "enforced"
	every step in container.after {
		# at: OCI.Annotations[io.kubernetes.cri.container-name]
		# wanted: {container_name} only after {step.container} has {step.state}
		# got: {container_name} too early
		was(step.state, step.container)

		# at: OCI.Annotations[io.kubernetes.cri.container-name]
		# wanted: {container_name} only while {step.container} runs
		# got: {container_name} without it
		step_ok(step)
	}

	# at: OCI.Annotations[io.kubernetes.cri.container-name]
	# wanted: {container_name} once, as it has succeeded
	# got: {container_name} again
	not awaited
}

step_ok(step) if step.state != "started"

step_ok(step) if {
	was("runs", step.container) == true
	not was("signalled", step.container)
}

# Another waits for this one to succeed, and it has.
awaited if {
	was("succeeded", container_name)
	some name in container_names
	some step in policy_container(name).after
	step == {"container": container_name, "state": "succeeded"}
}

create_ops := array.concat(
	[
		{"op": "add", "path": "/pstate/pod", "value": pod},
		{"op": "add", "path": sprintf("/pstate/container:%s", [input.container_id]), "value": container_name},
		{"op": "add", "path": sprintf("/pstate/running:%s", [container_name]), "value": input.container_id},
	],
	array.concat(
		[put(kind, container_name, again) |
			some kind, again in {"runs": null, "signalled": false}
			is_boolean(data.pstate[sprintf("%s:%s", [kind, container_name])])
		],
		[put("device", escaped(sprintf("%s:%s:%s", [owner, volume, source])), true) |
			some [source, volume] in volumes
			owner := concat("", {input.container_id | own(source)})
		],
	),
)

# What goes with the container.
own(source) if source in private

own(source) if startswith(source, sprintf("%s/%s-", [policy.common.shared_dirs[0], input.container_id]))

StartContainerRequest := {"allowed": true, "ops": start_ops} if container_ok

start_ops := [put(kind, name, true) |
	some name in named
	some kind in ["started", "runs"]
]

# Only our gate asks this, after the agent answered WaitProcess. A process ends once.
WaitProcessResponse := {"allowed": true, "ops": array.concat(
	[put("runs", ended, false)],
	[put("succeeded", ended, not_signalled) |
		input.response.status == 0
		was("runs", ended) == true
	],
)} if {
	ended
	input.request.exec_id in {"", input.request.container_id}
}

ended := name_of(input.request.container_id)

default not_signalled := false

not_signalled if not was("signalled", ended)

RemoveContainerRequest := {"allowed": true, "ops": remove_ops} if container_ok

remove_ops := array.concat(
	[{"op": "remove", "path": sprintf("/pstate/%s", [escaped(key)])} |
		some key, value in data.pstate
		gone(key, value)
	],
	[put("runs", name, false) | some name in named; was("running", name) == input.container_id; was("runs", name)],
)

# What is said of the container that is removed.
gone(key, _) if {
	some kind in ["container", "device"]
	startswith(sprintf("%s:", [key]), sprintf("%s:%s:", [kind, input.container_id]))
}

gone(key, value) if {
	startswith(key, "running:")
	value == input.container_id
}

gone(key, _) if {
	startswith(key, "copied:")
	shared_file(trim_prefix(key, "copied:")).id == input.container_id
}

# Every container of the policy has been started.
default pod_complete := false

pod_complete if {
	count(container_names) > 0
	every name in container_names {
		was("started", name)
	}
}
