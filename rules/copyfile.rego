# CopyFile: how files of the pod's volumes reach a guest that shares none with the host.
package agent_policy

import rego.v1

CopyFileRequest := {"allowed": true, "ops": copy_ops} if {
	copy_type_ok
	copy_path_ok
	copy_mode_ok
	copy_link_ok
	copy_content_ok
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
copy_mode_ok if bits.and(input.file_mode, 3072) == 0

# Below a volume, and not out of it. The agent writes a file by way of one whose
# name ends in .tmp: a link there would lead it elsewhere.
copy_link_ok if {
	# where
	input.file_type != "Symlink"
}

# at: symlink_target
# wanted: a path inside the volume, below its top
copy_link_ok if {
	# where
	input.file_type == "Symlink"
	count(copied.inner) > 0
	not endswith(input.path, ".tmp")
	not startswith(input.symlink_target, "/")
	not ".." in split(input.symlink_target, "/")
	not mount_through
}

# A mount of some container lies at the link or below it: the agent would follow.
mount_through if {
	some name in container_names
	mounts := policy_container(name).mounts
	some destination, m in mounts
	m.source == copied.name
	link := concat("/", array.concat([destination], copied.inner))
	some other, _ in mounts
	startswith(sprintf("%s/", [other]), sprintf("%s/", [link]))
}
