# Image, storages and mounts: what a container's files are.
package agent_policy

import rego.v1

# The image: annotation and pull source are the policy's, and the pull lands on
# the container's own root.
image_ok if {
	image_annotation_ok
	image_pull_ok
}

image_annotation_ok if object.get(input.OCI.Annotations, "io.kubernetes.cri.image-name", "") == object.get(container.OCI.Annotations, "io.kubernetes.cri.image-name", "")

image_annotation_ok if input.OCI.Annotations["io.kubernetes.cri.image-name"] in container.image.also

# A name of an image that does not come by it.
image_annotation_ok if annotation_ok("io.kubernetes.cri.image-name", input.OCI.Annotations["io.kubernetes.cri.image-name"])

image_annotation_ok if {
	policy.strict.image == "optional"
	not input.OCI.Annotations["io.kubernetes.cri.image-name"]
}

image_annotation_ok if policy.strict.image == "free"

image_pull_ok if {
	container.image.from == "guest-pull"

	# at: storages[image_guest_pull]
	# wanted: one, of {container.image.source}
	# got: {often(pulls)}
	count(pulls) == 1

	# item: storages[image_guest_pull]
	every pull in pulls {
		pull_source_ok(pull.source)
		object.remove(pull, ["driver_options", "source"]) == {
			"driver": "image_guest_pull",
			"fs_group": null,
			"fstype": "overlay",
			"mount_point": input.OCI.Root.Path,
			"options": [],
			"shared": false,
		}
		pull_metadata_ok(pull.driver_options)
	}
}

# at: storages[image_guest_pull]
# wanted: none: the image does not come from a registry in the guest
# got: {often(pulls)}
image_pull_ok if {
	pulls == []
	container.image.from != "guest-pull"
}

image_pull_ok if {
	pulls == []
	policy.strict.image != "required"
}

pulls := [s | some s in input.storages; s.driver == "image_guest_pull"]

pull_source_ok(source) if source == container.image.source

pull_source_ok(source) if source in container.image.also

pull_source_ok(_) if policy.strict.image == "free"

# The agent takes from it whether this is the sandbox container.
#
# wanted: the container's annotations, once
# got: {metadata_got(options)}
pull_metadata_ok(options) if options == [sprintf("image_guest_pull=%s", [json.marshal({"metadata": input.OCI.Annotations})])]

# Without it the agent reads the annotations themselves.
pull_metadata_ok(options) if options == []

pull_metadata_ok(options) if {
	[option] := options
	startswith(option, "image_guest_pull=")
	json.unmarshal(trim_prefix(option, "image_guest_pull=")) == {"metadata": input.OCI.Annotations}
}

# Storages, one to one with the policy's. What the host may choose is replaced by
# the placeholder that stands for it there. upstream.rego has a rule of its own.
storages_ok if {
	# where
	[count(input.storages), container.storages] == [count(pulls), []]
}

storages_ok if {
	others := [s | some s in input.storages; not s in pulls; not watched(s)]

	# item: storages[{s.mount_point}]
	every s in others {
		literal_ok(s)
	}

	# at: storages
	# wanted: {container.storages}
	# got: {[object.union(normal(s), object.filter(s, ["options", "driver_options"])) | some s in others]}
	sort([normal(s) | some s in others]) == sort([ordered(s) | some s in container.storages; not s.mount_point in replaced])
	shared := {s.mount_point | some s in others; s.shared}

	# at: storages
	# wanted: a mount point of its own for each
	count({path | some path in private} | shared) == count(private) + count(shared)
}

# Where storages of the container's own are.
private := [s.mount_point | some s in input.storages; not s.shared; not s.driver in {"ephemeral", "local"}]

# Directories of the guest in whose place others were made by copying.
replaced := {sprintf("$(local)/%s", [wanted.source]) |
	some m in input.OCI.Mounts
	wanted := container.mounts[m.destination]
	copied_ok(wanted, root_id, m.source)
}

# No placeholder comes from the host.
literal_ok(s) if {
	regex.match(`^[0-9A-Za-z_-]+$`, s.driver)
	startswith(s.mount_point, "/")
	not startswith(s.source, "$(")
}

normal(s) := object.union(ordered(s), {"driver": "$(block)", "source": "$(device)", "mount_point": point(s)}) if block_device(s)

else := object.union(ordered(s), {"mount_point": point(s)})

ordered(s) := object.union(s, {"options": sort(s.options), "driver_options": sort(s.driver_options)})

block_device(s) if {
	s.driver == "blk"
	regex.match(`^(?:[0-9a-f]{2}(?:/[0-9a-f]{2})?|[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])$`, s.source)
}

block_device(s) if {
	s.driver == "scsi"
	regex.match(`^[0-9]+:[0-9]+$`, s.source)
}

point(s) := "$(root)" if s.mount_point == input.OCI.Root.Path

else := "$(device)" if {
	block_device(s)
	s.mount_point == device_point(s)
}

else := sprintf("$(local)/%s", [trim_prefix(s.mount_point, dir)]) if {
	s.driver == "local"
	some dir in local_dirs
	startswith(s.mount_point, dir)
}

else := s.mount_point

# Where the agent makes directories of the guest for the pod.
local_dirs := {sprintf("%s%s/%s/rootfs/local/", [dir, sub, input.OCI.Annotations["io.kubernetes.cri.sandbox-id"]]) |
	some dir in policy.common.shared_dirs
	some sub in ["", "/passthrough"]
}

# A mount of shared files that the agent keeps in step, where the policy shares some so.
watched(s) if {
	some dir in policy.common.shared_dirs
	endswith(dir, "/watchable")
	tail := trim_prefix(s.mount_point, dir)
	some m in input.OCI.Mounts
	m.source == s.mount_point
	s == {
		"driver": "watchable-bind", "driver_options": [], "fs_group": null, "fstype": "bind", "mount_point": sprintf("%s%s", [dir, tail]),
		"options": m.options, "shared": false, "source": sprintf("%s%s", [trim_suffix(dir, "/watchable"), tail]),
	}
}

device_point(s) := sprintf("%s/%s", [policy.common.storage_dir, base64url.encode(s.source)])

# Mounts, one to one with the policy's. Those that are exactly as the policy has
# them need no further look.
mounts_ok if {
	destinations := [path | path := input.OCI.Mounts[_].destination]
	there := {destination | some destination in destinations}

	# containerd 1.6 gives the pause container its shared memory twice.
	#
	# items: {d | some d in destinations; [container.type, d] != ["sandbox", "/dev/shm"]; count([1 | some other in destinations; other == d]) > 1}
	# item: OCI.Mounts[{item}]
	# wanted: once
	# got: twice
	(count(destinations) - count(there)) in {0, count([1 | container.type == "sandbox"; some destination in destinations; destination == "/dev/shm"]) - 1}

	# Most mounts have none below them, and those that every container has come before.
	# Only where that is not so is each looked at.
	others := there - {"/dev", "/sys"}
	below := split(sprintf("%s/", [concat("/ ", others)]), " ")
	nested := {regex.match(`(?s) /(dev/.* /dev|sys/.* /sys) `, sprintf(" %s ", [concat(" ", destinations)])), strings.any_prefix_match(others, below)}

	# items: mounts_over
	# item: OCI.Mounts[{item}]
	# wanted: before those below it
	# got: after one
	count({m | nested[true]; some m in mounts_over}) == 0

	# item: OCI.Mounts[{destination}]
	every destination in (object.keys(container.mounts) | {path | path := base_mounts[_].destination}) - there {
		# wanted: {source_wanted(wanted_mount(destination))}
		# got: missing
		missing_mount_ok(wanted_mount(destination))
	}

	# item: OCI.Mounts[{m.destination}]
	every m in unusual_mounts {
		# absent: no such mount
		# got: {m.source}
		mount_ok(wanted_mount(m.destination), m)
	}
	volumes_ok
}

# Destinations of mounts that come after one below them, and hide it. Runtimes put the
# volumes of a pod behind what every container has, which is of other types.
mounts_over contains m.destination if {
	some i, m in input.OCI.Mounts
	below := sprintf("%s/", [m.destination])
	some other in array.slice(input.OCI.Mounts, 0, i)
	startswith(other.destination, below)
	[volume_like(m), volume_like(other)] != [true, false]
}

volume_like(m) := m.type_ in {"bind", "local"}

base_mounts := {m | some m in policy.common.mounts[container.base_mounts]}

# Those that are not exactly the policy's.
other_mounts := ({m | some m in input.OCI.Mounts} - base_mounts) - {{"destination": destination, "options": w.options, "source": w.source, "type_": w.type_} |
	container.mounts[destination].from == "exact"
	w := container.mounts[destination]
}

# Of these, those that are no shared files that mount_ok takes in the policy's
# order of options, found with less work.
unusual_mounts := other_mounts - {m |
	before := sprintf("%s/%s-", [policy.common.shared_dirs[0], root_id])
	some m in other_mounts
	wanted := container.mounts[m.destination]
	wanted.from == "shared"
	m.type_ == wanted.type_
	m.options == wanted.options
	["", tail] = split(m.source, before)
	regex.match(`^[a-z0-9]{16}-`, tail)
	substring(tail, 17, -1) == wanted.source
}

wanted_mount(destination) := wanted if {
	wanted := container.mounts[destination]
} else := object.union(m, {"from": "exact"}) if {
	some m in base_mounts
	m.destination == destination
}

missing_mount_ok(_) if policy.strict.mounts == "optional"

missing_mount_ok(wanted) if wanted.optional

mount_ok(wanted, m) if {
	m.type_ == wanted.type_
	options_ok(wanted, m.options)
	source_ok(wanted, m.source)
}

# An emptyDir can be a directory that the agent makes for a copy of nothing.
mount_ok(wanted, m) if {
	m.type_ == "bind"
	options_ok(wanted, m.options)
	copied_ok(wanted, root_id, m.source)
	alone_ok(wanted, m.source)
}

# The pod's copy.
alone_ok(_, source) if {
	# where
	not own(source)
}

# A copy of the container's own, where no other mount has the volume and nothing else is copied by that name.
#
# wanted: {copied_wanted(wanted)}
alone_ok(wanted, source) if count([1 |
	some name in container_names
	some m in policy_container(name).mounts
	m.source in {"local": [wanted.source], "shared": [substring(source, (count(policy.common.shared_dirs[0]) + prefix_length) + 1, -1)]}[m.from]
]) == 1

# wanted: {copied_wanted(wanted)}
copied_ok(wanted, id, source) if regex.match(replace(wanted.copied, "$(container-id)", id), source)

# In any order. upstream.rego adds that /sys may be read-only where it asks for a
# writable one.
options_ok(wanted, options) if options == wanted.options

# containerd 1.6 says no more of the pause container's own.
options_ok(_, ["rbind", "ro"]) if container.type == "sandbox"

options_ok(wanted, options) if {
	got := {option | some option in options}
	count(got) == count(options)
	needed := {option | some option in wanted.options}
	count(needed - got) == 0
	count((got - needed) - {option | some option in wanted.extra_options}) == 0
}

# upstream.rego adds sources that are one of several, or patterns.
#
# wanted: {source_wanted(wanted)}
source_ok(wanted, source) if {
	wanted.from == "exact"
	source == wanted.source
}

source_ok(wanted, source) if {
	wanted.from == "shared"
	some dir in policy.common.shared_dirs
	before := sprintf("%s/%s-", [dir, root_id])
	random := substring(source, count(before), random_length)
	source == sprintf("%s%s%s", [before, random, wanted.source])
	regex.match(`^[a-z0-9]{16}-$`, random)
}

# Where the host shares by names of its own choice.
source_ok(wanted, source) if {
	wanted.from == "shared"
	some pattern in policy.common.shared_sources
	regex.match(pattern, source)
}

source_ok(wanted, source) if {
	wanted.from == "local"
	some dir in local_dirs
	source == sprintf("%s%s", [dir, wanted.source])
	source in {s.mount_point | some s in input.storages; s.driver == "local"}
}

source_ok(wanted, source) if {
	wanted.from == "storage"
	source in block_points
}

# A file that the host shares or copies, by its path:
# <shared directory>/<container id>-<16 random>-<name>/<inner>/…
shared_file(path) := {"id": split(top, "-")[0], "name": substring(top, prefix_length, -1), "inner": inner} if {
	some dir in policy.common.shared_dirs
	startswith(path, sprintf("%s/", [dir]))
	parts := split(trim_prefix(path, sprintf("%s/", [dir])), "/")
	top := parts[0]
	inner := array.slice(parts, 1, count(parts))
	regex.match(`^[0-9a-f]{64}-[a-z0-9]{16}-.`, top)
}

random_length := 17

# with a dash behind each
prefix_length := 82

block_points := {s.mount_point | some s in input.storages; block_device(s)}

# A volume is the same storage in every container that has it, and two volumes are
# never the same storage.
#
# at: OCI.Mounts
# wanted: a storage for each volume, the same in every container
# got: others
volumes_ok if volumes == set()

volumes_ok if {
	known := {[parts[3], parts[2]] |
		some key, _ in data.pstate
		parts := split(key, ":")
		parts[0] == "device"
	}
	count({source | some [source, _] in (volumes | known)}) == count(volumes | known)
	count({volume | some [_, volume] in (volumes - known)} & {volume | some [_, volume] in known}) == 0

	# At each of a container's places a device may be another, as some shims send it; a directory is not.
	directories := [volume | some [source, volume] in volumes; not source in block_points]
	count({volume | some volume in directories}) == count(directories)
}

volumes := {[m.source, wanted.source] |
	some m in unusual_mounts
	wanted := container.mounts[m.destination]
	wanted.from in {"local", "storage"}
}
