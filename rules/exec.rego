# ExecProcess: another process in a container that runs.
package agent_policy

import rego.v1

ExecProcessRequest if {
	exec_container_ok
	exec_command_ok
	exec_process_ok
	exec_stdio_ok
	exec_env_ok
}

# at: container_id
# wanted: a container that runs
exec_container_ok if was("runs", name_of(input.container_id)) == true

exec_container_ok if {
	policy.strict.lifecycle == "free"
	exec_container
}

# of the policy
exec_container := policy_container(name_of(input.container_id))

# A probe or hook of this container, without a terminal; or a command that the
# policy allows in every container.
exec_command_ok if {
	exec_known
	exec_terminal_ok
}

# at: process.Args
# one of: array.concat(exec_container.exec, policy.requests.exec.commands)
exec_known if input.process.Args in exec_container.exec

exec_known if exec_listed

exec_listed if input.process.Args in policy.requests.exec.commands

exec_listed if {
	some pattern in policy.requests.exec.joined
	regex.match(pattern, concat(" ", input.process.Args))
}

exec_terminal_ok if input.process.Terminal == false

exec_terminal_ok if {
	policy.requests.exec.terminal
	exec_listed
}

# The process runs as the container's own process does, and gains nothing. Kata
# leaves NoNewPrivileges out of all but the container's own process.
exec_process_ok if {
	input.string_user == null
	input.process.Capabilities == null
	input.process.Rlimits == []
	input.process.SelinuxLabel == ""
	input.process.ApparmorProfile in policy.common.apparmor
	input.process.Cwd == exec_container.cwd
	input.process.NoNewPrivileges in {false, exec_container.no_new_privileges}
	console_ok(input.process)
	oom_ok(input.process)
	user_ok(exec_container, input.process.User)
}

# Ports carry a stream past the requests that read and write it.
exec_stdio_ok if {
	# wanted: an id of its own
	safe_id(input.exec_id)

	# wanted: an id of its own
	input.exec_id != input.container_id
	port_ok(input.stdin_port, policy.requests.exec.stdin)
	port_ok(input.stdout_port, policy.requests.read_stream)
	port_ok(input.stderr_port, policy.requests.read_stream)
}

exec_env_ok if env_ok(exec_container, input.process.Env, policy.strict.exec_env)
