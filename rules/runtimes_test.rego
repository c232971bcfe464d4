package agent_policy_test

import data.agent_policy
import rego.v1

# What runtimes differ in, in every form that is known, and nothing beside it.

known := {"fixed": ["PORT=80", "MODE=a"], "templates": {}, "optional": {}, "patterns": {}, "shadowed": ["PORT=8080"]}

open := {"version": 1, "common": {"env": {"names": {"SECRET": "^.*$"}, "whole": ["^[A-Z]+=x$"]}}}

env_ok(env, vars) if agent_policy.env_ok({"env": env}, vars, "required") with data.agent_policy.policy_data as open

test_image_variable_before_the_pods if {
	every vars in [["PORT=80", "MODE=a"], ["PORT=8080", "PORT=80", "MODE=a"], ["PORT=8080", "MODE=a", "PORT=80"]] {
		env_ok(known, vars)
	}
}

test_image_variable_otherwise_refused if {
	every vars in [
		["PORT=80", "PORT=8080", "MODE=a"], ["PORT=8080", "MODE=a"], ["PORT=81", "PORT=80", "MODE=a"],
		["PORT=8080", "PORT=80", "MODE=a", "MODE=a"], ["PORT=8080", "PORT", "MODE=a"], ["MODE=b", "MODE=a", "PORT=80"],
	] {
		not env_ok(known, vars)
	}
}

hashed := {"fixed": [], "templates": {}, "optional": {}, "patterns": {}, "hashes": {"SECRET": crypto.sha256("hunter2")}}

test_hashed_variable if env_ok(hashed, ["SECRET=hunter2"])

test_hashed_variable_refused if {
	every vars in [[], ["SECRET=x"], ["SECRET="], ["SECRET"], ["SECRET=hunter2", "SECRET=x"], ["SECRET=hunter3"]] {
		not env_ok(hashed, vars)
	}
}

test_users if {
	wanted := {"OCI": {"Process": {"User": {"UID": 5, "AdditionalGids": [5]}}}, "other_users": [{"UID": 0, "AdditionalGids": [0, 1]}]}
	agent_policy.user_ok(wanted, {"UID": 5, "AdditionalGids": [5]})
	agent_policy.user_ok(wanted, {"UID": 0, "AdditionalGids": [1, 0]})
	not agent_policy.user_ok(wanted, {"UID": 0, "AdditionalGids": [5]})
	not agent_policy.user_ok(wanted, {"UID": 5, "AdditionalGids": [0, 1]})
	agent_policy.user_ok({"OCI": {"Process": {"User": {"UID": 5, "AdditionalGids": [5]}}}}, {"UID": 5, "AdditionalGids": [5]})
}

dirs := {"version": 1, "common": {"shared_dirs": ["/s", "/s/watchable"], "root_path": "/r/$(container-id)/rootfs", "other_root_paths": ["/s/$(container-id)/rootfs"]}}

pod := {"Annotations": {"io.kubernetes.cri.sandbox-id": "p"}, "Mounts": [{"source": "/s/watchable/a", "options": ["rbind", "rprivate", "ro"]}], "Root": {"Path": "/x"}}

local(source, point) if {
	agent_policy.source_ok({"from": "local", "source": "v"}, source) with data.agent_policy.policy_data as dirs
		with input as {"OCI": pod, "storages": [{"driver": "local", "mount_point": point}]}
}

test_local if {
	local("/s/p/rootfs/local/v", "/s/p/rootfs/local/v")
	local("/s/passthrough/p/rootfs/local/v", "/s/passthrough/p/rootfs/local/v")
	not local("/s/p/rootfs/local/w", "/s/p/rootfs/local/w")
	not local("/s/p/rootfs/local/v", "/s/p/rootfs/local/w")
	not local("/s/q/rootfs/local/v", "/s/q/rootfs/local/v")
}

watched(change) if {
	storage := object.union(
		{
			"driver": "watchable-bind", "driver_options": [], "fs_group": null, "fstype": "bind", "mount_point": "/s/watchable/a",
			"options": ["rbind", "rprivate", "ro"], "shared": false, "source": "/s/a",
		},
		change,
	)
	agent_policy.watched(storage) with data.agent_policy.policy_data as dirs with input as {"OCI": pod}
}

test_watched if {
	watched({})
	every change in [{"source": "/s/b"}, {"source": "/etc"}, {"mount_point": "/s/watchable/b", "source": "/s/b"}, {"options": ["rbind"]}, {"fstype": "ext4"}, {"driver_options": ["x"]}] {
		not watched(change)
	}
}

test_root_of_another_runtime if {
	agent_policy.root_id == "c" with data.agent_policy.policy_data as dirs with input as {"container_id": "c", "OCI": {"Root": {"Path": "/s/c/rootfs"}}}
	agent_policy.root_id == "c" with data.agent_policy.policy_data as dirs with input as {"container_id": "d", "OCI": {"Root": {"Path": "/r/c/rootfs"}}}
}

resources := {
	"BlockIO": null, "CPU": {"Cpus": "", "Mems": "", "Period": 100000, "Quota": 5, "RealtimePeriod": 0, "RealtimeRuntime": 0, "Shares": 2}, "Devices": [], "HugepageLimits": [],
	"Memory": {"DisableOOMKiller": false, "Kernel": 0, "KernelTCP": 0, "Limit": 5, "Reservation": 0, "Swap": 5, "Swappiness": 0}, "Network": null, "Pids": null,
}

update(change) if {
	agent_policy.UpdateContainerRequest with data.agent_policy.policy_data as {"version": 1} with data.pstate as {"container:c": "web"}
		with input as {"container_id": "c", "resources": object.union(resources, change)}
}

test_sizes_of_a_running_container if {
	every change in [
		{}, {"CPU": null, "Memory": null}, {"HugepageLimits": [{"Limit": 0, "Pagesize": "2MB"}]}, {"CPU": {"Shares": 7}},
		{"Devices": [{"Access": "rwm", "Allow": false}]},
	] {
		update(change)
	}
}

test_other_resources_of_a_running_container_refused if {
	every change in [
		{"BlockIO": {"Weight": 10}}, {"Pids": {"Limit": 1}}, {"Network": {"ClassID": 1}}, {"Devices": [{"Access": "rwm", "Allow": true}]},
		{"HugepageLimits": [{"Limit": 0, "Pagesize": "../2MB"}]}, {"CPU": {"Cpus": "0"}}, {"CPU": {"Mems": "0"}}, {"CPU": {"RealtimePeriod": 1}},
		{"Memory": {"DisableOOMKiller": true}}, {"Memory": {"Swappiness": 1}}, {"Memory": {"Kernel": 1}}, {"Memory": {"Reservation": 1}},
	] {
		not update(change)
	}
	not agent_policy.UpdateContainerRequest with data.agent_policy.policy_data as {"version": 1} with data.pstate as {"container:c": "web"}
		with input as {"container_id": "d", "resources": resources}
}

name_servers(lines) if {
	agent_policy.sandbox_dns_ok with input as {"dns": lines}
}

test_lines_of_resolv_conf if {
	name_servers([])
	name_servers(["10.96.0.10"])
	name_servers(["# of the node", "search shop.svc.cluster.local", "nameserver 10.96.0.10", "nameserver fe80::1%eth0", "options ndots:5", ""])
	every line in ["x", "nameserver example.com", " nameserver 10.96.0.10", "nameservers 10.96.0.10"] {
		not name_servers([line])
	}
}

test_scores_of_the_kernel if {
	every score in [-1000, 0, 1000] {
		agent_policy.oom_ok({"OOMScoreAdj": score})
	}
	not agent_policy.oom_ok({"OOMScoreAdj": 1001})
	not agent_policy.oom_ok({"OOMScoreAdj": -1001})
}
