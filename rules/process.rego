# The process of a container: what runs, as whom, with which rights.
package agent_policy

import rego.v1

process_ok if {
	c := container
	object.subset(input.OCI.Process, {"Cwd": c.cwd, "NoNewPrivileges": c.no_new_privileges, "Terminal": c.terminal})
	user_ok(c, input.OCI.Process.User)
	input.OCI.Version in policy.common.oci_versions
	input.OCI.Process.ApparmorProfile in policy.common.apparmor
	console_ok(input.OCI.Process)
	oom_ok(input.OCI.Process)
}

# The kernel's range.
oom_ok(process) if {
	process.OOMScoreAdj >= -1000
	process.OOMScoreAdj <= 1000
}

console_ok(process) if process.ConsoleSize == null

console_ok(process) if process.Terminal

user_ok(c, user) if user == c.OCI.Process.User

user_ok(c, user) if {
	sorted := object.union(user, {"AdditionalGids": sort(user.AdditionalGids)})
	sorted in array.concat([c.OCI.Process.User], object.get(c, "other_users", []))
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
filled(template) := value if value := placeholders[template]

else := strings.replace_n(placeholders, template)

placeholders := {
	"$(sandbox-name)": this_pod.name,
	"$(sandbox-namespace)": this_pod.namespace,
	"$(sandbox-uid)": this_pod.uid,
}

this_pod := data.pstate.pod if data.pstate.pod

else := pod

capabilities_ok if {
	# where
	input.OCI.Process.Capabilities == policy.common.capabilities[container.capabilities]
}

capabilities_ok if {
	wanted := policy.common.capabilities[container.capabilities]
	object.keys(input.OCI.Process.Capabilities) == object.keys(wanted)
	every set, names in wanted {
		capability_set_ok(names, input.OCI.Process.Capabilities[set])
	}
}

capability_set_ok(wanted, got) if got == wanted

capability_set_ok(wanted, got) if {
	count(got) == count(wanted)
	sort([trim_prefix(name, "CAP_") | some name in got]) == sort([trim_prefix(name, "CAP_") | some name in wanted])
}

# The environment, by name: nothing twice, nothing unknown, nothing missing. What
# is as the policy has it needs no further look.
env_ok(c, given, level) if {
	env := own_env(c.env, given)
	entries := {e | some e in env}
	fixed := fixed_env(c)
	own := entries - fixed
	hashes := object.get(c.env, "hashes", {})
	patterns := object.remove(c.env.patterns, hashes)

	# Those that variable_ok takes by a pattern, found with less work.
	usual := {e: name |
		some e in own
		[name, value] := split(e, "=")
		regex.match(patterns[name], value)
	}
	others := own - object.keys(usual)
	other_names := {split(e, "=")[0] | some e in others}
	names := other_names | {name | some name in usual}

	# As links, as long as none is a name alone or has a name that is known.
	links := {e |
		others != set()
		count(other_names & (others | object.keys(known_env(c)))) == 0
		some pattern in policy.common.env.whole
		some e in others
		regex.match(pattern, e)
	}
	missing := {split(e, "=")[0] | some e in (fixed - entries)} | (object.keys(object.union(patterns, hashes)) - names)

	# Known by name beside a value of its own.
	beside := {1 |
		others != set()
		strings.any_prefix_match(fixed, split(sprintf("%s=", [concat("= ", other_names)]), " "))
	}

	# secret
	# item: $given[{split(e, "=")[0]}]
	every e in others - links {
		# wanted: {variable_wanted(c, split(e, "=")[0])}
		# got: {variable_value(e)}
		variable_ok(c, e, split(e, "=")[0])
	}

	# secret
	# items: repeated_names(env)
	# item: $given[{item}]
	# wanted: once
	# got: twice
	[count(names) + count(entries - own), beside] == [count(env), set()]

	# secret
	# items: missing
	# item: $given[{item}]
	# wanted: {variable_wanted(c, item)}
	# got: missing
	object.get({"optional": set()}, level, missing) == set()
}

known_env(c) := object.union_n([policy.common.env.names, c.env.optional, c.env.patterns, object.get(c.env, "hashes", {})])

# One that is known by name, or a link to a service of a name that the policy does
# not use. No entry may be a name alone, which is what split leaves as it is.
variable_ok(c, e, name) if {
	e != name
	not c.env.hashes[name]
	regex.match(known_env(c)[name], trim_prefix(e, sprintf("%s=", [name])))
}

variable_ok(c, e, name) if {
	e != name
	not known_env(c)[name]
	some pattern in policy.common.env.whole
	regex.match(pattern, e)
}

# Bound without being shown. Not every engine has the function, nor is asked for it.
variable_ok(c, e, name) if {
	e != name
	hash := c.env.hashes[name]
	crypto.sha256(trim_prefix(e, sprintf("%s=", [name]))) == hash
}

# Without what the image says of variables that the pod sets too: runtimes send both,
# the pod's last, which counts.
own_env(wanted, env) := own if {
	wanted.shadowed
	own := [e | some i, e in env; not shadowed(wanted.shadowed, e, array.slice(env, i + 1, count(env)))]
} else := env

shadowed(known, e, later) if {
	e in known
	some other in later
	startswith(other, sprintf("%s=", [split(e, "=")[0]]))
}

fixed_env(c) := {e | some e in c.env.fixed} | {sprintf("%s=%s", [name, filled(template)]) | some name, template in c.env.templates}

# Ports carry a stream past the requests that read and write it.
stdio_ok if {
	# where
	[input.stdin_port, input.stdout_port, input.stderr_port] == [0, 0, 0]
}

stdio_ok if {
	port_ok(input.stdin_port, container.stdin)
	port_ok(input.stdout_port, policy.requests.read_stream)
	port_ok(input.stderr_port, policy.requests.read_stream)
}

port_ok(port, _) if port == 0

port_ok(_, open) if open
