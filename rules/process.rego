# The process of a container: what runs, as whom, with which rights.
package agent_policy

import rego.v1

process_ok if {
	process := input.OCI.Process
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
filled(template) := strings.replace_n(placeholders, template)

placeholders := {
	"$(sandbox-name)": this_pod.name,
	"$(sandbox-namespace)": this_pod.namespace,
	"$(sandbox-uid)": this_pod.uid,
}

this_pod := data.pstate.pod

this_pod := pod if not data.pstate.pod

capabilities_ok if input.OCI.Process.Capabilities == policy.common.capabilities[container.capabilities]

capabilities_ok if {
	wanted := policy.common.capabilities[container.capabilities]
	object.keys(input.OCI.Process.Capabilities) == object.keys(wanted)
	every set, names in wanted {
		got := input.OCI.Process.Capabilities[set]
		count(got) == count(names)
		sort([trim_prefix(name, "CAP_") | some name in got]) == sort([trim_prefix(name, "CAP_") | some name in names])
	}
}

# The environment, by name: nothing twice, nothing unknown, nothing missing. The
# usual one has the policy's fixed values, and one for each of its patterns.
env_ok(c, env, _) if {
	patterns := c.env.patterns
	count(env) == (count(c.env.fixed) + count(c.env.templates)) + count(patterns)
	entries := {e | some e in env}
	count(entries) == count(env)
	others := entries - fixed_env(c)
	names := {name |
		some e in others
		[name, value] := split(e, "=")
		regex.match(patterns[name], value)
	}
	count(names) == count(others)
	count(names) == count(patterns)
}

# Others may be there by name, or as links to services of names that the policy
# does not use. No entry may be a name alone, which is what split leaves as it is.
env_ok(c, env, level) if {
	entries := {e | some e in env}
	count(entries) == count(env)
	fixed := fixed_env(c)
	others := {e: split(e, "=")[0] | some e in (entries - fixed)}
	names := {name | some name in others}
	count(names) == count(entries - fixed)
	count(names & entries) == 0
	patterns := object.union_n([policy.common.env.names, c.env.optional, c.env.patterns])
	known := {e | some e, name in others; pattern := patterns[name]; regex.match(pattern, trim_prefix(e, concat("", [name, "="])))}
	links := object.remove(others, known)
	count({name | some name in links} & (object.keys(patterns) | {split(e, "=")[0] | some e in fixed})) == 0
	count({e | some e, _ in links; some pattern in policy.common.env.whole; regex.match(pattern, e)}) == count(links)
	env_complete(level, ((fixed - entries) | (object.keys(c.env.patterns) - names)))
}

fixed_env(c) := {e | some e in c.env.fixed} | {concat("=", [name, filled(template)]) | some name, template in c.env.templates}

env_complete("optional", _) := true

env_complete("required", missing) if count(missing) == 0

# Ports carry a stream past the requests that read and write it.
stdio_ok if [input.stdin_port, input.stdout_port, input.stderr_port] == [0, 0, 0]

stdio_ok if {
	port_ok(input.stdin_port, container.stdin)
	port_ok(input.stdout_port, policy.requests.read_stream)
	port_ok(input.stderr_port, policy.requests.read_stream)
}

port_ok(0, _) := true

port_ok(_, true) := true
