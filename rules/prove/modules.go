// SPDX-License-Identifier: Apache-2.0

package prove

// modules has a comparison for each check of the rules. Those without a comparison look at no field of policy_data, or only at what
// another one compares: they decide alike under any two policies between which the others find no difference.
var modules = []module{
	{"name", nil, compareNames},
	{"instance", []string{"strict.instances"}, compareInstances},
	{"order", []string{"order", "containers[].after"}, compareOrder},
	{"type", []string{"containers[].type", "containers[].pidns"}, compareType},
	{"plain", nil, nothing},
	{"propagation", []string{"containers[].mounts[].extra_options"}, comparePropagation},
	{"id", []string{"strict.container_id", "containers[].readonly_root", "common.root_path", "common.other_root_paths"}, compareID},
	{"process", []string{"common.apparmor", "common.oci_versions", "containers[].cwd", "containers[].no_new_privileges",
		"containers[].terminal", "containers[].OCI.Process", "containers[].other_users"}, compareProcess},
	{"args", []string{"containers[].args", "containers[].arg_matches"}, compareArgs},
	{"capabilities", []string{"common.capabilities", "containers[].capabilities"}, compareCapabilities},
	{"stdio", []string{"containers[].stdin", "requests.read_stream"}, compareStdio},
	{"linux", []string{"containers[].devices", "strict.mounts", "strict.container_id"}, nothing},
	{"devices", []string{"containers[].devices", "containers[].vfio"}, compareDevices},
	{"paths", []string{"strict.paths", "common.paths", "containers[].paths"}, comparePaths},
	{"namespaces", []string{"containers[].namespaces"}, compareNamespaces},
	{"sysctl", []string{"strict.sysctl", "containers[].sysctl"}, compareSysctls},
	{"identity", []string{"sandbox.name", "sandbox.namespace", "sandbox.hostname", "common.bundle_path"}, compareIdentity},
	{"pod", nil, nothing},
	{"sandbox", []string{"strict.lifecycle"}, nothing},
	{"annotations", []string{"strict.annotations", "common.annotations", "containers[].annotations", "containers[].vfio"}, compareAnnotations},
	{"image", []string{"strict.image", "containers[].image", "containers[].OCI.Annotations"}, compareImage},
	{"storages", []string{"containers[].storages", "common.storage_dir", "common.shared_dirs"}, compareStorages},
	{"mounts", []string{"strict.mounts", "containers[].mounts", "containers[].base_mounts", "common.mounts", "common.shared_sources"}, compareMounts},
	{"contents", []string{"containers[].mounts[].contents"}, compareContents},
	{"env", []string{"strict.env", "common.env", "containers[].env"}, compareEnv},

	{"sandbox_once", []string{"strict.instances"}, nothing},
	{"sandbox_plain", []string{"sandbox.pidns"}, nothing},
	{"sandbox_id", []string{"strict.container_id"}, nothing},
	{"sandbox_dns", nil, nothing},
	{"sandbox_hostname", []string{"sandbox.hostname", "sandbox.name"}, nothing},
	{"sandbox_storages", []string{"sandbox.storages", "strict.storages"}, compareSandbox},

	{"exec_container", []string{"strict.lifecycle"}, nothing},
	{"exec_command", []string{"containers[].exec", "requests.exec"}, compareCommands},
	{"exec_process", []string{"requests.exec.terminal"}, compareTerminal},
	{"exec_stdio", []string{"requests.exec.stdin"}, compareExecStdio},
	{"exec_env", []string{"strict.exec_env"}, compareExecEnv},

	{"copy_type", nil, nothing},
	{"copy_path", []string{"requests.copy_file"}, compareCopyPath},
	{"copy_mode", nil, nothing},
	{"copy_link", []string{"containers[].mounts"}, compareLinks},
	{"copy_content", []string{"containers[].mounts[].contents", "strict.mounts"}, nothing},

	{"container", []string{"strict.lifecycle"}, compareLifecycle},
	{"started", []string{"strict.lifecycle"}, nothing},
	{"signal", []string{"containers[].stop_signal", "strict.lifecycle"}, compareSignals},
	{"resources", nil, nothing},
	{"requests", []string{"requests.allow", "requests.get_diagnostic_data", "requests.update_ephemeral_mounts"}, compareAllow},
	{"streams", []string{"requests.write_stream", "requests.close_stdin", "requests.exec.stdin", "containers[].stdin"}, compareStreams},
	{"hardware_address", nil, nothing},
	{"interface", []string{"requests.interface"}, compareInterface},
	{"routes", []string{"requests.routes"}, compareRoutes},
	{"arp", []string{"requests.arp"}, compareARP},

	{"issuers", []string{"issuers"}, compareIssuers}, // of no rule: what the policy may become by fragments
}

func nothing(*comparison) {}
