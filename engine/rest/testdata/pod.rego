# Decisions that are bools, written for the tests: whatever the engine and OPA make of it must be the same.
package agent_policy

import future.keywords.every
import future.keywords.if
import future.keywords.in

default SetPolicyRequest := true

default AllowRequestsFailingPolicy := false

default ExecProcessRequest := false

default CreateSandboxRequest := false

default CopyFileRequest := false

StatsContainerRequest := true

ReadStreamRequest := false

CreateContainerRequest if {
	some container in policy_data.containers
	annotations_ok(container)
	container.OCI.Process.Args == input.OCI.Process.Args
	every e in input.OCI.Process.Env {
		env_ok(container, e)
	}
	input.OCI.Root.Readonly == container.OCI.Root.Readonly
	input.OCI.Process.NoNewPrivileges == container.OCI.Process.NoNewPrivileges
	input.OCI.Process.Terminal == container.OCI.Process.Terminal
	every m in input.OCI.Mounts {
		mount_ok(container, m)
	}
}

annotations_ok(container) if {
	every key, value in container.OCI.Annotations {
		regex.match(value, input.OCI.Annotations[key])
	}
}

env_ok(container, e) if e in container.OCI.Process.Env

env_ok(_, e) if {
	some pattern in policy_data.common.env
	regex.match(pattern, e)
}

mount_ok(container, m) if {
	some wanted in container.OCI.Mounts
	wanted.destination == m.destination
	wanted.type_ == m.type_
	wanted.options == m.options
	regex.match(wanted.source, m.source)
}

ExecProcessRequest if {
	some command in policy_data.exec
	command == concat(" ", input.process.Args)
	input.process.Terminal == false
	every e in input.process.Env {
		some pattern in policy_data.common.env
		regex.match(pattern, e)
	}
}

CreateSandboxRequest if {
	input.guest_hook_path == ""
	count(input.kernel_modules) == 0
	count(input.storages) == 0
}

CopyFileRequest if {
	some pattern in policy_data.copy
	regex.match(pattern, input.path)
	not contains(input.path, "..")
}

UpdateRoutesRequest if {
	every r in input.routes.Routes {
		r.device != "lo"
	}
}

UpdateInterfaceRequest if not input["interface"].name == "lo"

RemoveContainerRequest if regex.match(`^[a-z0-9-]{1,64}$`, input.container_id)

undecided = 1 if input.first

undecided = 2 if input.second

policy_data := {
  "common": {"env": ["^[A-Z_]+=[a-z0-9.:/-]*$", "^PATH=", "^HOSTNAME=", "^KUBERNETES_"]},
  "copy": ["^/run/kata-containers/shared/containers/"],
  "exec": ["sh", "/bin/probe --live", "echo hello"],
  "containers": [
    {
      "OCI": {
        "Annotations": {"io.kubernetes.cri.container-name": "^app$"},
        "Root": {"Readonly": true},
        "Process": {"Args": ["/bin/app", "--serve"], "Env": ["MODE=Production mode"], "NoNewPrivileges": true, "Terminal": false},
        "Mounts": [{"destination": "/proc", "source": "^proc$", "type_": "proc", "options": ["nosuid", "noexec", "nodev"]}]
      }
    }
  ]
}
