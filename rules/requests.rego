# What a confidential pod lets the host ask of its Kata agent.
#
# The host is the attacker. Each rule named after a message of the agent's API
# decides one kind of request: true, or an object with "allowed" and the changes
# to make to the state once the agent has succeeded. Undefined is a denial.
#
# What this pod in particular may do is policy_data; package policydata describes
# it. These rules are the same for every pod.
package agent_policy

import rego.v1

# Turns denials into warnings, for debugging. Never with these rules.
AllowRequestsFailingPolicy := false

# The pod's policy is bound to the hardware; it does not change.
SetPolicyRequest := false

# The host may end the pod, learn its size and add CPUs and memory to it.
DestroySandboxRequest := true

GetOOMEventRequest := true

GuestDetailsRequest := true

OnlineCPUMemRequest := true

RemoveStaleVirtiofsShareMountsRequest := true

# Allowed as a whole where policy_data lists them by name.
AddSwapPathRequest if listed("AddSwapPathRequest")

AddSwapRequest if listed("AddSwapRequest")

GetIPTablesRequest if listed("GetIPTablesRequest")

GetMetricsRequest if listed("GetMetricsRequest")

ListInterfacesRequest if listed("ListInterfacesRequest")

ListRoutesRequest if listed("ListRoutesRequest")

MemAgentCompactConfig if listed("MemAgentCompactConfig")

MemAgentMemcgConfig if listed("MemAgentMemcgConfig")

MemHotplugByProbeRequest if listed("MemHotplugByProbeRequest")

PauseContainerRequest if listed("PauseContainerRequest")

ReseedRandomDevRequest if listed("ReseedRandomDevRequest")

ResizeVolumeRequest if listed("ResizeVolumeRequest")

ResumeContainerRequest if listed("ResumeContainerRequest")

SetGuestDateTimeRequest if listed("SetGuestDateTimeRequest")

SetIPTablesRequest if listed("SetIPTablesRequest")

UpdateContainerRequest if listed("UpdateContainerRequest")

# Sizes may change while the container runs; no device is let in.
UpdateContainerRequest if {
	container_ok
	resources_ok(input.resources)
	every d in input.resources.Devices {
		not d.Allow
	}
}

VolumeStatsRequest if listed("VolumeStatsRequest")

listed(name) if name in policy.requests.allow

# For a container that exists. One that its own process got is remembered: it did
# not end by itself.
SignalProcessRequest := {"allowed": true, "ops": signal_ops} if {
	container_ok
	signal_ok
}

signal_ops := [put("signalled", name, true) |
	own_process
	some name in named
]

# What a kubelet sends: SIGTERM, SIGKILL, and what the image or the manifest names
# instead of SIGTERM.
#
# at: signal
# wanted: SIGTERM, SIGKILL, or the signal that the image names
signal_ok if input.signal in {9, 15, exec_container.stop_signal}

# Never one that stops a process without ending it: SIGCONT to SIGTTOU.
signal_ok if {
	policy.strict.lifecycle == "free"
	not input.signal in {18, 19, 20, 21, 22}
}

StatsContainerRequest if started_ok

TtyWinResizeRequest if started_ok

WaitProcessRequest if container_ok

GetDiagnosticDataRequest if {
	policy.requests.get_diagnostic_data
	container_ok
}

# Output to the host, and input from it, only where the policy asks for it. An
# agent without our gate goes on reading output that is denied, not undefined.
default ReadStreamRequest := false

ReadStreamRequest if {
	# says: output is not open to the host: requests.read_stream
	policy.requests.read_stream
	started_ok
}

WriteStreamRequest if {
	# says: stdin is not open to the host: containers[].stdin, requests.exec.stdin
	stdin_allowed
	started_ok
}

CloseStdinRequest if {
	# says: stdin is not open to the host: containers[].stdin, requests.close_stdin
	closing_allowed
	started_ok
}

closing_allowed if policy.requests.close_stdin

closing_allowed if stdin_allowed

stdin_allowed if policy.requests.write_stream

stdin_allowed if {
	own_process
	policy_container(name_of(input.container_id)).stdin
}

stdin_allowed if {
	not own_process
	policy.requests.exec.stdin
}

# The container's own process, as opposed to one started by ExecProcess.
own_process if input.exec_id in {"", input.container_id}

# Sizes of memory-backed volumes: those of the policy, mounted already, remounted.
UpdateEphemeralMountsRequest if {
	policy.requests.update_ephemeral_mounts
	every s in input.storages {
		object.subset(s, {"driver": "ephemeral", "fstype": "tmpfs"})
		s.source in {"tmpfs", "shm"}
		s.driver_options == []
		s.mount_point in memory_points
		every option in s.options {
			regex.match(`^(?:remount|size=[0-9]+)$`, option)
		}
	}
}

memory_points contains s.mount_point if {
	some c in array.concat([policy.sandbox], [policy_container(name) | some name in container_names])
	some s in c.storages
	s.driver == "ephemeral"
}
