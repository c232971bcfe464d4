# The process of a container: what runs, as whom, with which rights.
package agent_policy

import rego.v1

process_ok if {
	process := input.OCI.Process
	process.Terminal == container.terminal
	process.Cwd == container.cwd
	process.NoNewPrivileges == container.no_new_privileges
	process.ApparmorProfile in policy.common.apparmor
	input.OCI.Version in policy.common.oci_versions
	console_ok(process)
	user_ok(container, process.User)
}

console_ok(process) if process.ConsoleSize == null

console_ok(process) if process.Terminal

user_ok(c, user) if user == c.user

user_ok(c, user) if {
	object.remove(user, ["AdditionalGids"]) == object.remove(c.user, ["AdditionalGids"])
	sort(user.AdditionalGids) == c.user.AdditionalGids
}

args_ok if {
	container.arg_matches == {}
	input.OCI.Process.Args == container.args
}

args_ok if {
	container.arg_matches != {}
	count(input.OCI.Process.Args) == count(container.args)
	every i, arg in input.OCI.Process.Args {
		arg_ok(format_int(i, 10), i, arg)
	}
}

arg_ok(key, i, arg) if {
	not container.arg_matches[key]
	arg == container.args[i]
}

arg_ok(key, _, arg) if arg == filled(container.arg_matches[key].template)

arg_ok(key, _, arg) if regex.match(container.arg_matches[key].pattern, arg)

# A template with what is known of the pod.
filled(template) := replace(replace(replace(template, "$(sandbox-name)", this_pod.name), "$(sandbox-namespace)", this_pod.namespace), "$(sandbox-uid)", this_pod.uid)

this_pod := data.pstate.pod

this_pod := pod if not data.pstate.pod

capabilities_ok if input.OCI.Process.Capabilities == policy.common.capabilities[container.capabilities]

capabilities_ok if {
	wanted := policy.common.capabilities[container.capabilities]
	count(wanted) == 5
	object.keys(input.OCI.Process.Capabilities) == object.keys(wanted)
	every set, names in wanted {
		sort([trim_prefix(name, "CAP_") | some name in input.OCI.Process.Capabilities[set]]) == sort([trim_prefix(name, "CAP_") | some name in names])
	}
}

# The environment, by name: nothing twice, nothing unknown, nothing missing.
env_ok(c, env, level) if {
	entries := {entry | some entry in env}
	names := {split(entry, "=")[0] | some entry in env}
	count(names) == count(env)
	fixed := {entry | some entry in c.env.fixed}
	others := entries - fixed
	shared := {entry | some pattern in policy.common.env.whole; some entry in others; regex.match(pattern, entry)}
	every entry in others - shared {
		env_entry_ok(c, entry)
	}
	not_shadowed(env_names(c), shared)
	env_complete(level, ((fixed - entries) | (env_needed(c) - names)))
}

env_complete("optional", _) := true

env_complete("required", missing) if count(missing) == 0

env_needed(c) := object.keys(c.env.patterns) | object.keys(c.env.templates)

env_names(c) := env_needed(c) | object.keys(c.env.optional)

# A name of the container's own is not taken by what any container may carry.
not_shadowed(names, _) if count(names) == 0

not_shadowed(names, shared) if count(names & {split(entry, "=")[0] | some entry in shared}) == 0

env_entry_ok(c, entry) if {
	name := split(entry, "=")[0]
	not name in env_names(c)
	regex.match(policy.common.env.names[name], env_value(entry, name))
}

# A variable of this container whose value is not a literal.
env_entry_ok(c, entry) if {
	name := split(entry, "=")[0]
	env_value(entry, name) == filled(c.env.templates[name])
}

env_entry_ok(c, entry) if {
	name := split(entry, "=")[0]
	regex.match(c.env.patterns[name], env_value(entry, name))
}

env_entry_ok(c, entry) if {
	name := split(entry, "=")[0]
	regex.match(c.env.optional[name], env_value(entry, name))
}

env_value(entry, name) := trim_prefix(entry, prefix) if {
	prefix := concat("", [name, "="])
	startswith(entry, prefix)
}

# Ports carry a stream past the requests that read and write it.
stdio_ok if {
	port_ok(input.stdin_port, container.stdin)
	port_ok(input.stdout_port, policy.requests.read_stream)
	port_ok(input.stderr_port, policy.requests.read_stream)
}

port_ok(0, _) := true

port_ok(_, true) := true
