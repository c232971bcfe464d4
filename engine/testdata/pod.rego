package agent_policy

import future.keywords.contains
import future.keywords.every
import future.keywords.if
import future.keywords.in

default AllowRequestsFailingPolicy := false

default CreateContainerRequest := false

default ExecProcessRequest := false

default RemoveContainerRequest := false

default StartContainerRequest := false

default WriteStreamRequest := false

StatsContainerRequest := true

StartContainerRequest if data.pstate.containers[input.container_id]

CreateContainerRequest := {"ops": ops, "allowed": true} if {
	print("CreateContainerRequest:", input.container_id)
	some name, container in policy_data.containers
	name == input.OCI.Annotations["io.kubernetes.cri.container-name"]
	print("policy container", name)
	container.args == input.OCI.Process.Args
	container.cwd == input.OCI.Process.Cwd
	env_ok(container, input.OCI.Process.Env)
	not data.pstate.containers[input.container_id]
	ops := array.concat(first_op, [{"op": "add", "path": concat("/", ["", "pstate", "containers", input.container_id]), "value": name}])
}

first_op := [] if data.pstate.containers

first_op := [{"op": "add", "path": "/pstate/containers", "value": {}}] if not data.pstate.containers

env_ok(container, env) if {
	every e in env {
		some allowed in container.env
		regex.match(allowed, e)
	}
}

RemoveContainerRequest := {"allowed": true, "ops": [{"op": "remove", "path": concat("/", ["", "pstate", "containers", input.container_id])}]} if {
	data.pstate.containers[input.container_id]
}

ExecProcessRequest if {
	print("ExecProcessRequest:", input.process.Args)
	command := concat(" ", input.process.Args)
	some container in policy_data.containers
	some allowed in container.exec
	allowed == command
	input.process.Terminal == false
	input.process.Cwd == container.cwd
	env_ok(container, input.process.Env)
}

WriteStreamRequest if input.container_id in policy_data.interactive

WaitProcessResponse := {"ops": [{"op": "add", "path": "/pstate/exited", "value": input.status}]} if input.status
