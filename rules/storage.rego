# Image, storages and mounts: what a container's files are.
package agent_policy

import rego.v1

# The image: annotation and pull source are the policy's, and the pull lands on
# the container's own root.
image_ok if {
	image_annotation_ok
	image_pull_ok
}

image_annotation_ok if object.get(input.OCI.Annotations, "io.kubernetes.cri.image-name", "") == container.image.annotation

image_annotation_ok if input.OCI.Annotations["io.kubernetes.cri.image-name"] in container.image.also

image_annotation_ok if {
	policy.strict.image == "optional"
	not input.OCI.Annotations["io.kubernetes.cri.image-name"]
}

image_annotation_ok if policy.strict.image == "free"

image_pull_ok if {
	[pull] := pulls
	container.image.from == "guest-pull"
	pull_source_ok(pull.source)
	pull_metadata_ok(pull.driver_options)
	object.remove(pull, ["driver_options", "source"]) == {
		"driver": "image_guest_pull",
		"fs_group": null,
		"fstype": "overlay",
		"mount_point": input.OCI.Root.Path,
		"options": [],
		"shared": false,
	}
}

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
pull_metadata_ok(options) if options == [concat("", ["image_guest_pull=", json.marshal({"metadata": input.OCI.Annotations})])]

pull_metadata_ok(options) if {
	[option] := options
	startswith(option, "image_guest_pull=")
	json.unmarshal(trim_prefix(option, "image_guest_pull=")) == {"metadata": input.OCI.Annotations}
}

# Storages, one to one with the policy's. What the host may choose is replaced by
# the placeholder that stands for it there.
storages_ok if {
	container.storages == []
	count(input.storages) == count(pulls)
}

storages_ok if {
	others := [s | some s in input.storages; not s in pulls]
	every s in others {
		literal_ok(s)
	}
	sort([normal(s) | some s in others]) == sort([ordered(s) | some s in container.storages])
	private := [s.mount_point | some s in others; not s.shared]
	shared := {s.mount_point | some s in others; s.shared}
	count({path | some path in private} | shared) == count(private) + count(shared)
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

else := s.mount_point

device_point(s) := concat("/", [policy.common.storage_dir, base64url.encode(s.source)])

# Mounts, one to one with the policy's. The usual ones are exactly as the policy
# has them, or are shared files, with its type and options in its order.
mounts_ok if {
	wanted := container.mounts
	mounts := {m | some m in input.OCI.Mounts}
	exact := {{"destination": destination, "options": w.options, "source": w.source, "type_": w.type_} |
		some destination, w in wanted
		w.from == "exact"
	}
	base := {m | some m in policy.common.mounts[container.base_mounts]}
	others := (mounts - base) - exact
	prefix := concat("", [policy.common.shared_dirs[0], "/", root_id, "-"])
	shared := {m.destination |
		some m in others
		w := wanted[m.destination]
		w.options == m.options
		tail := trim_prefix(m.source, prefix)
		regex.match(`^[a-z0-9]{16}-`, tail)
		substring(tail, 17, -1) == w.source
		w.type_ == m.type_
		w.from == "shared"
	}
	count(shared) == count(others)
	count(mounts) == count(input.OCI.Mounts)
	count(mounts) == count(base) + count(wanted)
}

# Any others are looked at one by one.
mounts_ok if {
	there := {m.destination | some m in input.OCI.Mounts}
	count(there) == count(input.OCI.Mounts)
	every m in input.OCI.Mounts {
		mount_ok(wanted_mounts[m.destination], m)
	}
	mounts_complete(object.keys(wanted_mounts) - there)
	volumes_ok
}

wanted_mounts := object.union(container.mounts, {m.destination: object.union(m, {"from": "exact"}) | some m in policy.common.mounts[container.base_mounts]})

mounts_complete(_) if policy.strict.mounts == "optional"

mounts_complete(missing) if {
	every destination in missing {
		wanted_mounts[destination].optional
	}
}

mount_ok(wanted, m) if {
	m.type_ == wanted.type_
	options_ok(wanted, m.options)
	source_ok(wanted, m.source)
}

options_ok(wanted, options) if options == wanted.options

options_ok(wanted, options) if {
	got := {option | some option in options}
	count(got) == count(options)
	needed := {option | some option in wanted.options}
	count(needed - got) == 0
	count((got - needed) - {option | some option in wanted.extra_options}) == 0
}

source_ok(wanted, source) if {
	wanted.from == "exact"
	source == wanted.source
}

# <shared directory>/<container id>-<16 random>-<name>
source_ok(wanted, source) if {
	wanted.from == "shared"
	some dir in policy.common.shared_dirs
	prefix := concat("", [dir, "/", root_id, "-"])
	startswith(source, prefix)
	tail := trim_prefix(source, prefix)
	regex.match(`^[a-z0-9]{16}-`, tail)
	substring(tail, 17, -1) == wanted.source
}

source_ok(wanted, source) if {
	wanted.from == "storage"
	source in block_points
}

block_points := {s.mount_point | some s in input.storages; block_device(s)}

# Two volumes are never the same storage.
volumes_ok if container.storages == []

volumes_ok if {
	uses := {[m.source, wanted.source] |
		some m in input.OCI.Mounts
		wanted := container.mounts[m.destination]
		wanted.from == "storage"
	}
	count({source | some [source, _] in uses}) == count(uses)
}
