# The policy of the demo's pod, written by hand to be read: a pause container, one init container, one application.
package agent_policy

import rego.v1

# What may run: arguments, image, environment and the commands that may be run inside later.
containers := {
	"pause": {"args": ["/pause"], "image": "registry.example/pause@sha256:aaaa", "env": set(), "exec": set()},
	"init": {"args": ["/bin/migrate", "--once"], "image": "registry.example/shop@sha256:bbbb", "env": {"DB=db.svc"}, "exec": set()},
	"app": {"args": ["/bin/shop"], "image": "registry.example/shop@sha256:bbbb", "env": {"DB=db.svc"}, "exec": {["/bin/probe", "--live"]}},
}

# Requests that tell the host nothing it does not know, and change nothing.
default GuestDetailsRequest := true

default StatsContainerRequest := true

default WaitProcessRequest := true

default SignalProcessRequest := true

default ReadStreamRequest := true

default DestroySandboxRequest := true

CreateSandboxRequest := {"allowed": true, "ops": [add("", {"names": {}})]} if {
	not data.pstate.names
	input.guest_hook_path == ""
	input.kernel_modules == []
}

CreateContainerRequest := {"allowed": true, "ops": [add(sprintf("/names/%s", [name]), input.container_id)]} if {
	name := wanted_name
	not data.pstate.names[name]
	count(differences) == 0
}

StartContainerRequest if input.container_id in running

RemoveContainerRequest := {"allowed": true, "ops": [{"op": "remove", "path": sprintf("/pstate/names/%s", [name])}]} if {
	some name, id in data.pstate.names
	id == input.container_id
}

ExecProcessRequest if {
	some name, id in data.pstate.names
	id == input.container_id
	input.process.Args in containers[name].exec
	not input.process.Terminal
}

CopyFileRequest if {
	startswith(input.path, "/run/kata-containers/shared/containers/")
	not ".." in split(input.path, "/")
	input.file_type == "Regular"
}

add(path, value) := {"op": "add", "path": concat("", ["/pstate", path]), "value": value}

wanted_name := input.OCI.Annotations["io.kubernetes.cri.container-name"]

running := {id | some id in data.pstate.names}

# Differences between the container that is asked for and the policy's, as sentences without values that may be secret.
differences contains "the policy has no container of this name" if not containers[wanted_name]

differences contains sprintf("%s: arguments are not %v", [wanted_name, containers[wanted_name].args]) if {
	input.OCI.Process.Args != containers[wanted_name].args
}

differences contains sprintf("%s: image is %s, not %s", [wanted_name, image, containers[wanted_name].image]) if {
	image := input.OCI.Annotations["io.kubernetes.cri.image-name"]
	image != containers[wanted_name].image
}

differences contains sprintf("%s: variable %s is not as in the policy", [wanted_name, split(variable, "=")[0]]) if {
	some variable in input.OCI.Process.Env
	not variable in containers[wanted_name].env
}

# Reasons, asked for after a denial.
reasons.CreateSandboxRequest contains "the sandbox is there already" if data.pstate.names

reasons.CreateContainerRequest contains difference if some difference in differences

reasons.CreateContainerRequest contains sprintf("%s runs already", [wanted_name]) if data.pstate.names[wanted_name]

reasons.ExecProcessRequest contains sprintf("%v is not a command of this container", [input.process.Args]) if {
	not input.process.Args in {command | some container in containers; some command in container.exec}
}

reasons.ExecProcessRequest contains "a terminal is not allowed" if input.process.Terminal

reasons.CopyFileRequest contains "the path leaves the shared directory" if ".." in split(input.path, "/")

reasons.CopyFileRequest contains sprintf("a file of type %s is not allowed", [input.file_type]) if input.file_type != "Regular"
