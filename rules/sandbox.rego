# CreateSandbox: the pod itself.
package agent_policy

import rego.v1

CreateSandboxRequest := {"allowed": true, "ops": [{
	"op": "add",
	"path": "/pstate/sandbox",
	"value": input.sandbox_id,
}]} if {
	sandbox_once_ok
	sandbox_plain_ok
	sandbox_id_ok
	sandbox_hostname_ok
	sandbox_dns_ok
	sandbox_storages_ok
}

# wanted: no sandbox yet
# at: sandbox_id
sandbox_once_ok if not data.pstate.sandbox

sandbox_once_ok if policy.strict.instances == "free"

# No code from the host, and the process namespace the policy says.
sandbox_plain_ok if {
	input.guest_hook_path == ""
	input.kernel_modules == []
	input.sandbox_pidns == policy.sandbox.pidns
}

sandbox_id_ok if regex.match(`^[0-9a-f]{64}$`, input.sandbox_id)

# Requests that are written by hand for tests name none.
sandbox_id_ok if {
	policy.strict.container_id == "free"
	input.sandbox_id == ""
}

sandbox_hostname_ok if regex.match(policy.sandbox.hostname, input.hostname)

sandbox_hostname_ok if {
	policy.sandbox.hostname == "$(sandbox-name)"

	# wanted: the pod's name, {policy.sandbox.name}
	regex.match(policy.sandbox.name, input.hostname)
}

sandbox_hostname_ok if input.hostname == ""

# Lines of resolv.conf, or addresses alone.
sandbox_dns_ok if {
	every line in input.dns {
		regex.match(`^((nameserver[ \t]+)?[0-9a-f.:]+(%.+)?|[#;].*|(search|options|domain|sortlist)[ \t].*)?$`, line)
	}
}

sandbox_storages_ok if sort(input.storages) == sort(policy.sandbox.storages)

# One of Kata's shims asks for no devices on what the host shares.
sandbox_storages_ok if sort([device_free(s) | some s in input.storages]) == sort(policy.sandbox.storages)

# A function, as kata-agent's engine takes no list of a list of another's items.
device_free(s) := object.union(s, {"options": [o | some o in s.options; [s.fstype, o] != ["virtiofs", "nodev"]]})

sandbox_storages_ok if {
	policy.strict.storages == "optional"
	every s in input.storages {
		s in policy.sandbox.storages
	}
}
