# How findings are worded. Not part of the policy and evaluated only for a request
# that was denied: package findings compiles these functions together with what it
# reads off the rules, and they decide nothing.
#
# A value that is words of ours, and not one of the request's or the policy's, is
# an object with the key "phrase".
package agent_policy

import rego.v1

finding(order, check, path, wanted, got) := {"order": order, "check": check, "container": subject, "path": path, "wanted": wanted, "got": got, "secret": false}

secret_finding(order, check, path, wanted, got) := object.union(finding(order, check, path, wanted, got), {"secret": true})

# The findings that count: those of checks that failed, or of the first alone if it
# did, which finds what the request is about. One whose conditions have no place in
# the request is named.
conclusion(checks, found, about) := {f | some f in found; f.check == checks[0].name} if {
	not checks[0].passed
	some f in found
	f.check == checks[0].name
} else := {f | some f in found; not f.check in passed} | unlocated if {
	passed := {check.name | some check in checks; check.passed}
	named := {f.check | some f in found}
	unlocated := {finding(about + 1000, check.name, "", {"phrase": concat(" ", [check.name, "as the policy has it"])}, null) |
		some check in checks
		not check.passed
		not check.name in named
	}
}

# All containers, for tools.
policy_containers := {name: policy_container(name) | some name in container_names}

# The container that a request is about.
default subject := ""

subject := concat("", [name_of(input.container_id), ": "])

subject := concat("", [container_name, ": "]) if {
	input.OCI
	not name_of(input.container_id)
}

# What is there, if anything.
one(list) := list[0] if {
	count(list) == 1
} else := {"phrase": "missing"}

# A finding as one sentence: check, place, what it is and what is wanted.
sentence(f) := concat("", [f.container, f.check, ": ", f.path, " is not as the policy has it"]) if {
	f.secret
} else := f.wanted.phrase if {
	f.path == ""
} else := concat("", [f.container, f.check, ": ", f.path, " is ", shown(f.got), ", wanted ", shown(f.wanted)])

# A value in few words; of several that will do, all of them.
shown(value) := concat(" ", ["one of", brief(value["one of"])]) if {
	is_object(value)
	count(value["one of"]) != 1
} else := brief(value["one of"][0]) if {
	is_object(value)
	value["one of"]
} else := brief(value)

# Short, and on one line.
brief(value) := value.phrase if {
	is_object(value)
	value.phrase
} else := text if {
	text := json.marshal(value)
	count(text) <= 160
} else := concat("", [substring(json.marshal(value), 0, 160), "…"])

# Inside of a phrase, strings stand without quotes.
said(value) := value if {
	is_string(value)
} else := shown(value)

hex(n) := sprintf("%#x", [n])

octal(n) := {"phrase": sprintf("%#o", [n])}

# Where two values differ: the places of the wanted one where the other has
# something else, or nothing. Some names are no words and stand in brackets.
differences(path, wanted, got) := {f |
	walk(wanted, [keys, value])
	not is_object(value)
	here := object.get(got, keys, {"phrase": "missing"})
	here != value
	f := {"path": concat("", array.concat([path], [step(key) | some key in keys])), "wanted": value, "got": here}
}

# Where a value has something that the wanted one does not have so.
extras(path, wanted, got, unknown) := {f |
	some key, value in got
	has := object.get(wanted, key, {"phrase": unknown})
	has != value
	f := {"path": concat("", [path, step(key)]), "wanted": has, "got": value}
}

step(key) := concat("", [".", key]) if {
	regex.match(`^[0-9A-Za-z_]+$`, key)
} else := concat("", ["[", said(key), "]"])

# What a variable has to be: its value, what it has to match, or nothing at all. What
# is made of the pod's own names is no secret.
variable_wanted(c, name) := {"public": value} if {
	value := filled(c.env.templates[name])
} else := variable_value(entry) if {
	some entry in fixed_env(c)
	startswith(entry, concat("", [name, "="]))
} else := {"phrase": concat("", ["what matches ", pattern])} if {
	pattern := object.union_n([policy.common.env.names, c.env.optional, c.env.patterns])[name]
} else := {"phrase": "no such variable"}

variable_value(entry) := substring(entry, indexof(entry, "=") + 1, -1) if contains(entry, "=")

else := {"phrase": "no value"}

# Names that an environment has more than once, or beside a value of their own.
repeated_names(env) := {name | some e in env; name := split(e, "=")[0]; count([1 | some other in env; split(other, "=")[0] == name]) > 1}

annotation_wanted(key) := pattern if {
	pattern := object.union_n([policy.common.annotations.patterns, container.annotations.optional, container.annotations.patterns])[key]
} else := {"phrase": "no such annotation"}

# Where a mount has to come from.
source_wanted(wanted) := {"phrase": concat("", [policy.common.shared_dirs[0], "/<container id>-<16 random>-", wanted.source])} if {
	wanted.from == "shared"
} else := {"phrase": concat(" ", ["the block storage of volume", wanted.source])} if {
	wanted.from == "storage"
} else := {"phrase": concat("", ["one of ", concat(", ", wanted.sources)])} if {
	count(wanted.sources) > 1
} else := wanted.source

# Which directory may stand for an emptyDir of the guest.
copied_wanted(wanted) := {"phrase": `the one directory of an emptyDir; genpolicy's generate.empty_dir = "shared" takes one for each container`} if wanted.copied

copied_dirs := copied_wanted(policy_container(container_names[_]).mounts[_])

often(pulls) := {"phrase": "missing"} if {
	count(pulls) == 0
} else := {"phrase": sprintf("%d of them", [count(pulls)])}

# How what the agent pulls by is not the container's annotations.
metadata_got(options) := {"phrase": sprintf("%d options", [count(options)])} if {
	count(options) != 1
} else := {"phrase": concat(" ", ["another value of", key])} if {
	metadata := json.unmarshal(trim_prefix(options[0], "image_guest_pull=")).metadata
	keys := [key | some key, value in metadata; object.get(input.OCI.Annotations, key, value) != value]
	key := keys[0]
} else := {"phrase": "more or less of them"}

# The host name that the policy wants, or none.
hostname_wanted := {"one of": ["", hostname]} if hostname != ""

else := {"phrase": concat(" ", ["empty or what matches", policy.sandbox.hostname])}
