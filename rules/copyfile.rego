# CopyFile: how files of the pod's volumes reach a guest that shares none with the host.
package agent_policy

import rego.v1

CopyFileRequest if {
	input.file_type == "Directory"
	copy_path_ok
}

# Not with a set-user-id or set-group-id bit.
CopyFileRequest if {
	input.file_type == "Regular"
	copy_path_ok
	bits.and(input.file_mode, 3072) == 0
	copy_content_ok
}

# Below a volume, and not out of it.
CopyFileRequest if {
	input.file_type == "Symlink"
	copy_path_ok
	count(copy_inner) > 0
	not startswith(input.symlink_target, "/")
	not ".." in split(input.symlink_target, "/")
	copy_link_ok
}

# A policy's pattern says where; whatever it says, the path names no directory twice.
copy_path_ok if {
	some pattern in policy.requests.copy_file
	regex.match(pattern, input.path)
	parts := array.slice(split(input.path, "/"), 1, 10000)
	count({part | some part in parts; part in {"", ".", ".."}}) == 0
}

# <shared directory>/<container id>-<16 random>-<volume>/<inner>/…
copy_volume := split(copy_tail, "/")[0]

copy_inner := array.slice(split(copy_tail, "/"), 1, 10000)

copy_tail := substring(tail, 82, -1) if {
	some dir in policy.common.shared_dirs
	startswith(input.path, concat("", [dir, "/"]))
	tail := trim_prefix(input.path, concat("", [dir, "/"]))
	regex.match(`^[a-z0-9]{64}-[a-z0-9]{16}-[^/]`, tail)
}

# The key of a file in its volume: kubelet writes files below a dated directory,
# "..2026_11_23_08_00_00.1", and links them from the top.
copy_key := concat("/", copy_inner) if not in_dated_directory

copy_key := concat("/", array.slice(copy_inner, 1, 10000)) if in_dated_directory

in_dated_directory if startswith(copy_inner[0], "..")

# A volume whose contents the policy knows takes those contents only, whole.
copy_content_ok if count(policy.files) == 0

copy_content_ok if {
	copy_volume
	not policy.files[copy_volume]
}

copy_content_ok if {
	input.offset == 0
	input.data_sha256 in policy.files[copy_volume][copy_key]
}

# And links each name to the file of that name.
copy_link_ok if count(policy.files) == 0

copy_link_ok if {
	copy_volume
	not policy.files[copy_volume]
}

copy_link_ok if {
	policy.files[copy_volume]
	copy_inner == ["..data"]
	regex.match(`^\.\.[0-9_.]+$`, input.symlink_target)
}

copy_link_ok if {
	policy.files[copy_volume]
	[name] := copy_inner
	input.symlink_target == concat("", ["..data/", name])
}
