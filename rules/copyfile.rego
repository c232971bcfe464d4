# CopyFile: how files of the pod's volumes reach a guest that shares none with the host.
package agent_policy

import rego.v1

CopyFileRequest if {
	copy_type_ok
	copy_path_ok
	copy_mode_ok
	copy_content_ok
	copy_link_ok
}

copy_type_ok if input.file_type in {"Directory", "Regular", "Symlink"}

# A policy's pattern says where; whatever it says, the path names no directory twice.
#
# at: path
# one of: policy.requests.copy_file
copy_path_ok if {
	some pattern in policy.requests.copy_file
	regex.match(pattern, input.path)
	startswith(input.path, "/")
	count({name | some name in split(substring(input.path, 1, -1), "/"); name in {"", ".", ".."}}) == 0
}

# Not with a set-user-id or set-group-id bit.
copy_mode_ok if {
	# where
	input.file_type != "Regular"
}

# wanted: no set-id bits
# got: {octal(input.file_mode)}
copy_mode_ok if bits.and(input.file_mode, set_id_bits) == 0

set_id_bits := 3072

# A volume whose contents the policy knows takes those contents only, whole.
copy_content_ok if {
	# where
	input.file_type != "Regular"
}

copy_content_ok if copy_free

copy_content_ok if {
	input.offset == 0
	input.data_sha256 in policy.files[copied.name][copy_key]
}

# Below a volume, and not out of it; a known volume links each name to the file of
# that name.
copy_link_ok if {
	# where
	input.file_type != "Symlink"
}

# at: symlink_target
# wanted: a path inside the volume, below its top
copy_link_ok if {
	count(copied.inner) > 0
	not startswith(input.symlink_target, "/")
	not ".." in split(input.symlink_target, "/")
	copy_link_known
}

copy_link_known if copy_free

copy_link_known if {
	policy.files[copied.name]
	copied.inner == ["..data"]
	regex.match(`^\.\.[0-9_.]+$`, input.symlink_target)
}

copy_link_known if {
	policy.files[copied.name]
	[name] := copied.inner
	input.symlink_target == concat("", ["..data/", name])
}

copied := shared_file(input.path)

# The policy does not know what the volume holds.
copy_free if count(policy.files) == 0

copy_free if {
	copied
	not policy.files[copied.name]
}

# The key of a file in its volume: kubelet writes files below a dated directory,
# "..2026_11_23_08_00_00.1", and links them from the top.
copy_key := concat("/", copied.inner) if not in_dated_directory

copy_key := concat("/", array.slice(copied.inner, 1, count(copied.inner))) if in_dated_directory

in_dated_directory if startswith(copied.inner[0], "..")
