package agent_policy_test

import data.agent_policy
import rego.v1

shared := "/run/kata-containers/shared/containers"

volume := concat("", [shared, "/", concat("", ["a" | some _ in numbers.range(1, 64)]), "-0123456789abcdef-data"])

copying := {
	"version": 1,
	"containers": {"web": {"mounts": {"/data": {"from": "shared", "source": "data"}, "/other": {"from": "shared", "source": "data.."}, "/etc/hosts": {"from": "shared", "source": "hosts"}}}},
	"common": {"shared_dirs": [shared]},
	"requests": {"copy_file": [concat("", ["^", shared, "/[a-z0-9]{64}-[a-z0-9]{16}-[^/]+(?:/[^/]+)*$"])]},
}

file(path, fields) := object.union({"path": concat("", [volume, path]), "file_type": "Regular", "symlink_target": null, "file_mode": 420, "offset": 0}, fields)

test_copy if {
	every request in [file("", {}), file("/a/b", {}), file("../x..", {}), file("", {"file_type": "Directory"}), file("/a", {"file_type": "Symlink", "symlink_target": "b/c"})] {
		agent_policy.CopyFileRequest with data.agent_policy.policy_data as copying with input as request
	}
}

test_copy_refused if {
	every request in [
		file("/../x", {}), file("/a/..", {}), file("/./a", {}), file("//a", {}), file("/", {}),
		file("", {"file_type": "Unknown"}), file("", {"file_mode": 2541}),
		file("", {"file_type": "Symlink", "symlink_target": "b"}),
		file("/a", {"file_type": "Symlink", "symlink_target": "/b"}),
		file("/a", {"file_type": "Symlink", "symlink_target": "b/../../.."}),
		file("/a", {"file_type": "Symlink"}),
		file(".x", {}), file("/../x", {}), file("x/a", {}),
		object.union(file("", {}), {"path": replace(concat("", [volume, "/a"]), "-data/", "-hosts/")}),
		object.union(file("", {}), {"path": "/etc/passwd"}),
		object.union(file("", {}), {"path": concat("", ["/x", volume])}),
		object.union(file("", {}), {"path": concat("", [shared, "/rootfs/bin/sh"])}),
	] {
		not agent_policy.CopyFileRequest with data.agent_policy.policy_data as copying with input as request
	}
}
