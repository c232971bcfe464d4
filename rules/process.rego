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
	object.union(user, {"AdditionalGids": sort(user.AdditionalGids)}) == c.user
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
filled(template) := strings.replace_n(
	{
		"$(sandbox-name)": this_pod.name,
		"$(sandbox-namespace)": this_pod.namespace,
		"$(sandbox-uid)": this_pod.uid,
	},
	template,
)

this_pod := data.pstate.pod

this_pod := pod if not data.pstate.pod

capabilities_ok if input.OCI.Process.Capabilities == policy.common.capabilities[container.capabilities]

capabilities_ok if {
	wanted := policy.common.capabilities[container.capabilities]
	count(wanted) == 5
	object.keys(input.OCI.Process.Capabilities) == object.keys(wanted)
	every set, names in wanted {
		got := input.OCI.Process.Capabilities[set]
		count(got) == count(names)
		every name in got {
			trim_prefix(name, "CAP_") in {trim_prefix(wanted_name, "CAP_") | some wanted_name in names}
		}
		count({name | some name in got}) == count(got)
	}
}

# The environment, by name: nothing twice, nothing unknown, nothing missing.
env_ok(c, env, level) if {
	entries := {e | some e in env}
	names := {split(e, "=")[0] | some e in env}
	count(names) == count(env)
	fixed := {e | some e in c.env.fixed}
	others := {split(e, "=")[0]: e | some e in (entries - fixed)}
	own := env_names(c)
	mine := object.filter(others, own)
	usual := {name | some name, e in mine; [_, value] := split(e, "="); regex.match(c.env.patterns[name], value)}
	every name, e in object.remove(mine, usual) {
		own_env_ok(c, name, env_value(name, e))
	}
	free := object.remove(others, own)
	links := {name | some pattern in policy.common.env.whole; some name, e in free; regex.match(pattern, e)}
	every name, e in object.remove(free, links) {
		regex.match(policy.common.env.names[name], env_value(name, e))
	}
	env_complete(level, ((fixed - entries) | (env_needed(c) - names)))
}

env_complete("optional", _) := true

env_complete("required", missing) if count(missing) == 0

env_needed(c) := object.keys(c.env.patterns) | object.keys(c.env.templates)

env_names(c) := env_needed(c) | object.keys(c.env.optional)

own_env_ok(c, name, value) if regex.match(c.env.patterns[name], value)

own_env_ok(c, name, value) if value == filled(c.env.templates[name])

own_env_ok(c, name, value) if regex.match(c.env.optional[name], value)

env_value(name, e) := trim_prefix(e, prefix) if {
	prefix := concat("", [name, "="])
	startswith(e, prefix)
}

# Ports carry a stream past the requests that read and write it.
stdio_ok if {
	port_ok(input.stdin_port, container.stdin)
	port_ok(input.stdout_port, policy.requests.read_stream)
	port_ok(input.stderr_port, policy.requests.read_stream)
}

port_ok(0, _) := true

port_ok(_, true) := true
