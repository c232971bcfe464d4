# Contents: files that the policy knows, by mount and key. Each is copied whole and
# as it is, before its container is created, and stays as it is.
#
# The state says what was copied: copied:<path> is the sha256 of a known file, "" for
# one of the host's choice, what a link points to as a list of one, null for a directory.
package agent_policy

import rego.v1

# A policy that takes the mounts in part, and knows no contents, does not look at names.
copy_content_ok if {
	policy.strict.mounts == "optional"
	not contents_known
}

# The directory that an emptyDir is, and never what is in it.
#
# at: path
# wanted: {copied_dirs}
copy_content_ok if {
	# where
	input.file_type == "Directory"
	some name in container_names
	some m in policy_container(name).mounts
	copied_ok(m, "[0-9a-f]{64}", input.path)
}

copy_content_ok if {
	# at: data_sha256
	# wanted: what a mount of that name has
	count(copy_fitting) > 0

	# at: path
	# wanted: what is there stays
	copy_kept
}

contents_known if {
	some name in container_names
	policy_container(name).mounts[_].contents
}

copied := shared_file(input.path)

# What the file's mount has, null where the host chooses: by the name, and by the
# container once that exists.
copy_contents contains object.get(m, "contents", null) if {
	some name in copy_containers
	some destination, m in policy_container(name).mounts
	m.from == "shared"
	m.source == copied.name
	copy_below_ok(destination)
}

copy_containers := {name_of(copied.id)} if name_of(copied.id)

else := container_names

# Nothing lies below the files that every container has.
copy_below_ok(_) if copied.inner == []

copy_below_ok(destination) if not destination in {"/dev/termination-log", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"}

copy_fitting contains null if null in copy_contents

# What has a place in the volume; directories are to be read by all.
copy_fitting contains contents if {
	some contents in copy_contents
	placed_ok(contents, concat("/", copied.inner), copy_value)
	bits.and(input.file_mode, 365) >= {true: 365, false: 0}[copy_value == null]
}

copy_value := [input.symlink_target] if {
	input.file_type == "Symlink"
} else := null if {
	input.file_type == "Directory"
}

else := input.data_sha256 if {
	some contents in copy_contents
	file := contents.files[key_of(concat("/", copied.inner))]
	input.data_sha256 == file.sha256
	[input.offset, input.file_size, object.get(input, "data_size", file.size), bits.and(input.file_mode, 511)] == [0, file.size, file.size, file.mode]
}

else := ""

# What may be at a path of a volume: a file, a link, or null for a directory.
placed_ok(contents, path, value) if {
	is_string(value)
	contents.files[key_of(path)].sha256 in {"", value}
}

placed_ok(contents, path, value) if {
	contents.open
	not is_array(value)
	not startswith(key_of(path), "..")
	not contents.files[key_of(path)]
}

# The kubelet writes files into a dated directory, links ..data to it, and the
# files' names to what is in there: of a ConfigMap without keys too.
placed_ok(_, path, value) if dated_ok(path, value)

placed_ok(contents, path, [target]) if {
	target == concat("/", ["..data", path])
	path in {split(key, "/")[0] | some key, _ in contents.files}
}

placed_ok(contents, path, [target]) if {
	target == concat("/", ["..data", path])
	contents.open
}

placed_ok(contents, "", null) if not contents.files[""]

placed_ok(contents, path, null) if {
	some key, _ in contents.files
	startswith(key, concat("", [key_of(path), "/"]))
}

dated_ok("..data", [target]) if dated(target)

dated_ok(path, null) if dated(path)

dated(name) if regex.match(`^\.\.[0-9_]+\.[0-9]+$`, name)

# The key of a file in its volume.
key_of(path) := substring(path, indexof(path, "/") + 1, -1) if {
	contains(path, "/")
	dated(split(path, "/")[0])
}

else := path

# What was copied is copied again only as it was.
copy_kept if copy_contents == {null}

copy_kept if object.get(data.pstate, concat("", ["copied:", input.path]), copy_value) == copy_value

# The other directory has all that this one has.
copy_kept if {
	copied.inner == ["..data"]
	every path, value in placed(dated_was) {
		was("copied", concat("", [trim_suffix(input.path, "..data"), input.symlink_target, path])) == value
	}
}

dated_was := concat("", [trim_suffix(input.path, "..data"), was("copied", input.path)[0]])

copy_ops := array.concat(
	[put("copied", escaped(input.path), copy_value) | copy_contents - {null} != set()],
	# A link that moves leaves the old directory behind.
	[{"op": "remove", "path": concat("", ["/pstate/copied:", escaped(dated_was), escaped(path)])} |
		copied.inner == ["..data"]
		not endswith(dated_was, input.symlink_target)
		some path, _ in placed(dated_was)
	],
)

# What was copied at a path and below it, by the rest of the path.
placed(path) := {trim_prefix(key, before): value |
	before := concat("", ["copied:", path])
	some key, value in data.pstate
	startswith(key, before)
}

# Every file of a mount that may not be missing is there, and no other is. A policy
# that takes the mounts in part takes their files in part.
contents_ok if {
	# item: OCI.Mounts[{m.destination}]
	every m in [m | container.mounts[at].contents; some m in other_mounts; m.destination == at] {
		# wanted: all files of the volume, copied before
		# got: incomplete, or has others
		contents_there(m.source, container.mounts[m.destination].contents)
	}
}

contents_ok if policy.strict.mounts == "optional"

contents_there(source, contents) if {
	at := placed(source)
	every key, file in contents.files {
		file_there(at, key, file)
	}
	every path, value in at {
		placed_ok(contents, trim_prefix(path, "/"), value)
	}
}

file_there(_, _, file) if file.optional

file_there(_, _, file) if file.sha256 == ""

file_there(at, key, file) if {
	at[trim_suffix(concat("/", ["", key]), "/")] == file.sha256
	not at["/..data"]
}

file_there(at, key, file) if {
	# a link, no directory
	at[concat("/", ["", split(key, "/")[0]])][0]
	[dir] := at["/..data"]
	at[concat("/", ["", dir, key])] == file.sha256
}
