# A policy from another tool: its rules try one container of policy_data after the
# other and print what they compare.
package agent_policy

import future.keywords.every
import future.keywords.if
import future.keywords.in

default CreateContainerRequest := false
default ExecProcessRequest := false

CreateContainerRequest if {
	print("CreateContainerRequest: begin")
	some i
	c := policy_data.containers[i]
	print("CreateContainerRequest: trying container", i)
	same_root(c.OCI.Root, input.OCI.Root)
	same_annotations(c)
	same_process(c.OCI.Process, input.OCI.Process)
	same_linux(c.OCI.Linux, input.OCI.Linux)
	same_mounts(c)
	same_storages(c)
	print("CreateContainerRequest: allowed")
}

same_root(wanted, got) if {
	print("same_root: Readonly", wanted.Readonly, got.Readonly)
	wanted.Readonly == got.Readonly
	print("same_root: true")
}

same_annotations(c) if {
	name := "io.kubernetes.cri.container-name"
	print("same_annotations: container-name", object.get(c.OCI.Annotations, name, ""), object.get(input.OCI.Annotations, name, ""))
	object.get(c.OCI.Annotations, name, "") == object.get(input.OCI.Annotations, name, "")
	every key, wanted in c.OCI.Annotations {
		print("same_annotations:", key)
		same_annotation(wanted, input.OCI.Annotations[key])
	}
	print("same_annotations: true")
}

same_annotation(wanted, got) if {
	startswith(wanted, "^")
	regex.match(wanted, got)
}

same_annotation(wanted, got) if {
	wanted == got
}

same_process(wanted, got) if {
	print("same_process: Terminal")
	wanted.Terminal == got.Terminal
	print("same_process: Cwd", wanted.Cwd, got.Cwd)
	wanted.Cwd == got.Cwd
	print("same_process: NoNewPrivileges")
	wanted.NoNewPrivileges == got.NoNewPrivileges
	same_user(wanted.User, got.User)
	same_args(wanted.Args, got.Args)
	same_env(wanted.Env, got.Env)
	same_capabilities(wanted.Capabilities, got.Capabilities)
	print("same_process: true")
}

same_user(wanted, got) if {
	print("same_user: UID", wanted.UID, got.UID)
	wanted.UID == got.UID
	print("same_user: GID", wanted.GID, got.GID)
	wanted.GID == got.GID
	print("same_user: AdditionalGids")
	wanted.AdditionalGids == got.AdditionalGids
}

same_args(wanted, got) if {
	print("same_args:", wanted, got)
	count(wanted) == count(got)
	every i, arg in got {
		print("same_args: argument", i)
		arg == wanted[i]
	}
	print("same_args: true")
}

same_env(wanted, got) if {
	print("same_env: begin")
	every entry in got {
		print("same_env: entry", entry)
		known_entry(wanted, entry)
	}
	print("same_env: true")
}

known_entry(wanted, entry) if {
	entry in wanted
}

known_entry(wanted, entry) if {
	name := split(entry, "=")[0]
	some w in wanted
	w == concat("", [name, "=$(any)"])
}

same_capabilities(wanted, got) if {
	every set, names in wanted {
		print("same_capabilities:", set)
		names == got[set]
	}
}

same_linux(wanted, got) if {
	print("same_linux: MaskedPaths")
	wanted.MaskedPaths == got.MaskedPaths
	print("same_linux: ReadonlyPaths")
	wanted.ReadonlyPaths == got.ReadonlyPaths
	print("same_linux: Sysctl")
	wanted.Sysctl == got.Sysctl
}

same_mounts(c) if {
	every m in input.OCI.Mounts {
		print("same_mounts:", m.destination)
		some w in c.OCI.Mounts
		same_mount(w, m)
	}
	print("same_mounts: count")
	count(c.OCI.Mounts) == count(input.OCI.Mounts)
}

same_mount(wanted, got) if {
	wanted.destination == got.destination
	wanted.type_ == got.type_
	wanted.options == got.options
	regex.match(wanted.source, got.source)
}

same_storages(c) if {
	print("same_storages: begin")
	wanted := {s.source | some s in c.storages}
	every s in input.storages {
		print("same_storages:", s.source)
		s.source in wanted
	}
}

ExecProcessRequest if {
	print("ExecProcessRequest: begin")
	some c in policy_data.containers
	some argv in c.exec_commands
	print("ExecProcessRequest:", argv, input.process.Args)
	argv == input.process.Args
}
