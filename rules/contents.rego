# Contents: files that the policy knows, by mount and key. Each is copied whole and
# as it is, before its container is created, and stays as it is.
#
# The state says what was copied: copied:<path> is the sha256 of a known file, the
# target of a link, or "" for a file of the host's choice.
package agent_policy

import rego.v1

copy_content_ok if not contents_known

copy_content_ok if {
	# at: data_sha256
	# wanted: what a mount of that name has
	count(copy_fitting) > 0

	# at: path
	# wanted: what is there stays
	copy_kept
}

copy_fitting contains contents if {
	some contents in copy_contents
	copy_fits(contents)
}

contents_known if {
	some name in container_names
	some m in policy_container(name).mounts
	m.contents
}

copied := shared_file(input.path)

# What the file's mount has, null where the host chooses: by the name, and by the
# container once that exists.
copy_contents contains contents if {
	some name in copy_containers
	some destination, m in policy_container(name).mounts
	m.from == "shared"
	m.source == copied.name
	contents := object.get(m, "contents", null)
	copy_below_ok(destination)
}

copy_containers := {name_of(copied.id)} if name_of(copied.id)

else := container_names

# Nothing lies below the files that every container has.
copy_below_ok(_) if copied.inner == []

copy_below_ok(destination) if not destination in {"/dev/termination-log", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"}

copy_fits(null)

copy_fits(contents) if {
	input.file_type == "Regular"
	copy_bound(contents)
}

copy_fits(contents) if {
	input.file_type == "Regular"
	contents.files[copy_key].sha256 == ""
}

copy_fits(contents) if {
	contents.open
	input.file_type != "Symlink"
	not contents.files[copy_key]
}

# To be read by all, as the kubelet makes them.
copy_fits(contents) if {
	input.file_type == "Directory"
	bits.and(input.file_mode, 365) == 365
	directory_ok(contents)
}

copy_fits(contents) if {
	input.file_type == "Symlink"
	copied.inner == ["..data"]
	contents != {"files": {}, "open": false}
	dated(input.symlink_target)
}

copy_fits(contents) if {
	input.file_type == "Symlink"
	[name] := copied.inner
	input.symlink_target == concat("", ["..data/", name])
	link_ok(contents, name)
}

copy_bound(contents) if {
	file := contents.files[copy_key]
	input.offset == 0
	input.data_sha256 == file.sha256
	input.file_size == file.size
	object.get(input, "data_size", input.file_size) == file.size
	bits.and(input.file_mode, 511) == file.mode
}

directory_ok(contents) if {
	copied.inner == []
	not contents.files[""]
}

directory_ok(contents) if {
	[name] := copied.inner
	dated(name)
	contents.files != {}
}

directory_ok(contents) if {
	some key, _ in contents.files
	startswith(key, concat("", [copy_key, "/"]))
}

link_ok(contents, _) if contents.open

link_ok(contents, name) if {
	some key, _ in contents.files
	split(key, "/")[0] == name
}

copy_key := key_of(concat("/", copied.inner))

# The key of a file in its volume: kubelet writes files below a dated directory
# and links them from the top.
key_of(path) := substring(path, indexof(path, "/") + 1, -1) if {
	contains(path, "/")
	dated(split(path, "/")[0])
}

else := path

dated(name) if regex.match(`^\.\.[0-9]{4}(_[0-9]{2}){5}\.[0-9]+$`, name)

# What was copied is copied again only as it was.
copy_kept if not contents_here

copy_kept if object.get(data.pstate, copied_at(input.path), copy_value) == copy_value

# The other directory has all that this one has.
copy_kept if {
	copied.inner == ["..data"]
	top := trim_suffix(input.path, "..data")
	was := concat("", [top, data.pstate[copied_at(input.path)], "/"])
	every path, value in placed(was) {
		data.pstate[copied_at(concat("", [top, input.symlink_target, "/", path]))] == value
	}
}

contents_here if {
	some contents in copy_contents
	contents != null
}

copy_value := input.symlink_target if {
	input.file_type == "Symlink"
} else := null if {
	input.file_type == "Directory"
}

else := input.data_sha256 if {
	some contents in copy_contents
	copy_bound(contents)
}

else := ""

copied_at(path) := concat("", ["copied:", path])

copy_ops := array.concat(
	[{"op": "add", "path": pointer(copied_at(input.path)), "value": copy_value} |
		contents_here
		input.file_type != "Directory"
	],
	outdated_ops,
)

# A link that moves leaves the old directory behind.
outdated_ops := [{"op": "remove", "path": pointer(copied_at(concat("", [was, path])))} |
	contents_here
	copied.inner == ["..data"]
	before := data.pstate[copied_at(input.path)]
	before != input.symlink_target
	was := concat("", [trim_suffix(input.path, "..data"), before, "/"])
	some path, _ in placed(was)
]

pointer(key) := concat("", ["/pstate/", escaped(key)])

# What was copied below a path that ends in a slash.
placed(path) := {trim_prefix(key, copied_at(path)): value |
	some key, value in data.pstate
	startswith(key, copied_at(path))
}

# Every file of a mount that may not be missing is there, and no other is. A policy
# that takes the mounts in part takes their files in part.
contents_ok if policy.strict.mounts == "optional"

contents_ok if {
	# item: OCI.Mounts[{m.destination}]
	every m in bound_mounts {
		# wanted: all files of the volume, copied before
		contents_there(m.source, m.contents)
	}
}

bound_mounts := [{"destination": m.destination, "source": m.source, "contents": container.mounts[m.destination].contents} |
	some m in input.OCI.Mounts
]

contents_there(source, contents) if {
	every key, file in contents.files {
		file_there(source, key, file)
	}
	every path, value in placed(concat("", [source, "/"])) {
		placed_ok(contents, path, value)
	}
}

file_there(_, _, file) if file.optional

file_there(_, _, file) if file.sha256 == ""

file_there(source, "", file) if data.pstate[copied_at(source)] == file.sha256

file_there(source, key, file) if {
	at := placed(concat("", [source, "/"]))
	first := split(key, "/")[0]
	at[first] == concat("", ["..data/", first])
	at[concat("", [at["..data"], "/", key])] == file.sha256
}

file_there(source, key, file) if {
	at := placed(concat("", [source, "/"]))
	at[key] == file.sha256
	not at[split(key, "/")[0]] == concat("", ["..data/", split(key, "/")[0]])
}

placed_ok(_, "..data", value) if dated(value)

placed_ok(_, path, value) if value == concat("", ["..data/", path])

placed_ok(contents, path, value) if contents.files[key_of(path)].sha256 == value

placed_ok(contents, path, _) if {
	contents.open
	not contents.files[key_of(path)]
}
