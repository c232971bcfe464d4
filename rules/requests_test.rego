package agent_policy_test

import data.agent_policy
import rego.v1

resizing := {
	"version": 1,
	"sandbox": {"storages": [{"driver": "ephemeral", "mount_point": "/run/kata-containers/sandbox/shm"}]},
	"containers": {"web": {"storages": [{"driver": "ephemeral", "mount_point": "/run/kata-containers/sandbox/ephemeral/cache.1"}, {"driver": "blk", "mount_point": "/dev/x"}]}},
	"requests": {"update_ephemeral_mounts": true},
}

ephemeral(fields) := {"storages": [object.union(
	{"driver": "ephemeral", "driver_options": [], "fs_group": null, "fstype": "tmpfs", "mount_point": "/run/kata-containers/sandbox/shm", "options": ["remount", "size=1024"], "shared": false, "source": "shm"},
	fields,
)]}

test_ephemeral if {
	every fields in [{}, {"mount_point": "/run/kata-containers/sandbox/ephemeral/cache.1", "source": "tmpfs"}] {
		agent_policy.UpdateEphemeralMountsRequest with data.agent_policy.policy_data as resizing with input as ephemeral(fields)
	}
}

test_ephemeral_refused if {
	every fields in [
		{"options": ["bind"]}, {"options": ["remount", "size=1,exec"]}, {"source": "/run"}, {"driver_options": ["x"]}, {"fstype": "bind"},
		{"mount_point": "/run/kata-containers/sandbox/ephemeral/."}, {"mount_point": "/run/kata-containers/sandbox/ephemeral/.."}, {"mount_point": "/etc"},
		{"mount_point": "/run/kata-containers/sandbox/ephemeral/other"}, {"mount_point": "/dev/x"},
	] {
		not agent_policy.UpdateEphemeralMountsRequest with data.agent_policy.policy_data as resizing with input as ephemeral(fields)
	}
}
