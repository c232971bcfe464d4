// SPDX-License-Identifier: Apache-2.0

package explain_test

import "portcullis/internal/emulator/shim"

// hints has a case for each of the words on what to change.
var hints = []hint{
	{advice: "a probe or hook has no terminal", exec: "web:/bin/web --check", change: []string{"ExecProcess:process.Terminal=true"}, settings: "requests.exec = {commands = [['/bin/web', '--check']], terminal = true}"},
	{advice: "to allow it, make it an exec probe", exec: "web:cat /x", settings: "requests.exec.commands = [['cat', '/x']]"},
	{advice: "a command gets the environment of", exec: "web:/bin/web --check", change: []string{"ExecProcess:process.Env[0]=LOG_LEVEL=debug"}},
	{advice: "a port opens a stream past the policy: requests.exec.stdin", exec: "web:/bin/web --check", change: []string{"ExecProcess:stdin_port=7"}, settings: "requests = {exec.stdin = true, read_stream = true}"},
	{advice: "this is the runtime's doing", exec: "web:/bin/web --check", change: []string{"ExecProcess:exec_id=../x"}},
	{advice: "no container was created under this id", exec: "web:/bin/web --check", change: []string{"ExecProcess:container_id=other"}},
	{advice: "no container was created under this id", change: []string{"web/StartContainer:container_id=other"}},
	{advice: "a command runs as container web does", exec: "web:/bin/web --check", change: []string{"ExecProcess:process.User.UID=0"}},

	{advice: "the file is not the one the policy was made with", manifest: [2]string{"currency = EUR", "currency = USD"}},
	{advice: "defaultMode of the volume", change: []string{"CopyFile:file_type=Regular", "CopyFile:file_mode=35309"}},
	{advice: "a link may lead to a file of its own volume only", change: []string{"CopyFile:file_type=Symlink", "CopyFile:symlink_target=/etc/passwd"}},
	{advice: "files may go below the volumes", change: []string{"CopyFile:path=/etc/passwd"}},

	{advice: "shareProcessNamespace of the pod decides this", change: []string{"CreateSandbox:sandbox_pidns=true"}},
	{advice: "hooks are the host's code", change: []string{"CreateSandbox:guest_hook_path=/x"}},
	{advice: "modules are the host's code", change: []string{"CreateSandbox:kernel_modules=[{\"name\":\"x\",\"parameters\":[]}]"}},
	{advice: "the sandbox's storages are", change: []string{"CreateSandbox:storages[0].options=[\"size=1\"]"}, settings: "sandbox.storages = [{driver = 'ephemeral', driver_options = [], source = 'shm', fstype = 'tmpfs', options = ['size=1'], mount_point = '/run/kata-containers/sandbox/shm', shared = false}]"},
	{advice: "the sandbox exists already", again: "CreateSandboxRequest"},

	{advice: "genpolicy -j logs", extra: "ReadStreamRequest", settings: "requests.read_stream = true"},
	{advice: "stdin: true of the container opens", extra: "WriteStreamRequest", settings: "requests.write_stream = true"},
	{advice: "stdin: true of the container, or", extra: "CloseStdinRequest", settings: "requests.close_stdin = true"},
	{advice: "the guest's loopback is its own, and more than this no network needs: look at the node's network plugin; requests.interface", change: []string{"UpdateInterface:interface.name=lo"}, settings: "requests.interface.forbidden_names = []"},
	{advice: "the guest's loopback is its own, and more than this no network needs: look at the node's network plugin; requests.routes", change: []string{"UpdateRoutes:routes.Routes[0].device=lo"}, settings: "requests.routes.forbidden_devices = []"},
	{advice: "the guest's loopback is its own, and more than this no network needs: look at the node's network plugin; requests.arp", extra: "AddARPNeighborsRequest", settings: "requests.arp.forbidden_devices = []"},

	{advice: "set MODE in env of container web again", manifest: [2]string{"    - {name: MODE, value: fast}\n", ""}},
	{advice: "NEW is not in env of container web", manifest: [2]string{"    - {name: MODE, value: fast}\n", "    - {name: MODE, value: fast}\n    - {name: NEW, value: x}\n"}},
	{advice: "NEW is not in env of container web", manifest: [2]string{"    - {name: MODE, value: fast}\n", "    - {name: MODE, value: fast}\n    - {name: NEW, value: x}\n"}, settings: "common.env.names.NEW = '^x$'"},
	{advice: "name KUBERNETES_SERVICE_PORT_HTTPS once", double: "Process.Env"},
	{advice: "LOG_LEVEL of container web", manifest: [2]string{"value: info", "value: debug"}},
	{advice: "command or args of container web", manifest: [2]string{"--listen=:8080", "--listen=:22"}},
	{advice: "the image of container web changed", manifest: [2]string{"shop/web:1.4", "shop/web:1.5"}},

	{advice: "/etc/shop is no longer in volumeMounts", manifest: [2]string{"    - {name: config, mountPath: /etc/shop, readOnly: true}\n", ""}},
	{advice: "/memory is mounted twice", change: []string{"web/CreateContainer:OCI.Mounts[/scratch].destination=/memory"}},
	{advice: "volumeMounts and volumes of container web changed at /etc/shop", change: []string{"web/CreateContainer:OCI.Mounts[/etc/shop].type_=nfs"}},
	{advice: "an emptyDir is no directory of the guest", platform: "peer-pods", emptyDirs: shim.HostDirs,
		base: [2]string{"  - name: other\n    image: registry.example/shop/web:1.4\n", "  - name: other\n    image: registry.example/shop/web:1.4\n    volumeMounts: [{name: scratch, mountPath: /other}]\n"},
		made: []string{"generate.empty_dir = 'local'"}, settings: "generate.empty_dir = 'shared'"},
	{advice: "a volume of container web is gone", remove: []string{"web/CreateContainer:storages[1]"}},
	{advice: "volumes of container web changed", manifest: [2]string{"    emptyDir: {}", "    emptyDir: {medium: Memory}"}},

	{advice: "workingDir of container web", manifest: [2]string{"workingDir: /srv", "workingDir: /tmp"}},
	{advice: "tty of container web", manifest: [2]string{"workingDir: /srv", "workingDir: /srv\n    tty: true"}},
	{advice: "securityContext.allowPrivilegeEscalation", manifest: [2]string{"allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"}},
	{advice: "securityContext.runAsUser of container web", manifest: [2]string{"allowPrivilegeEscalation: false", "allowPrivilegeEscalation: false\n      runAsUser: 1001"}},
	{advice: "runAsGroup of container web", manifest: [2]string{"allowPrivilegeEscalation: false", "allowPrivilegeEscalation: false\n      runAsGroup: 1001"}},
	{advice: "runAsGroup of container web or the pod, supplementalGroups", change: []string{"web/CreateContainer:OCI.Process.User.AdditionalGids=[1000,3000]"}},
	{advice: "the node sets this profile", change: []string{"web/CreateContainer:OCI.Process.ApparmorProfile=other"}, settings: "common.apparmor = ['', 'cri-containerd.apparmor.d', 'other']"},
	{advice: "the runtime is of a version", change: []string{"web/CreateContainer:OCI.Version=1.9.9"}, settings: "common.oci_versions = ['1.1.0', '1.2.0', '1.2.1', '1.3.0', '1.9.9']"},
	{advice: "securityContext, workingDir and tty", change: []string{"web/CreateContainer:OCI.Process.User.Username=root"}},
	{advice: "securityContext.capabilities or privileged", manifest: [2]string{"drop: [CHOWN]", "drop: [KILL]"}},
	{advice: "mountPropagation of a mount", change: []string{"web/CreateContainer:OCI.Linux.RootfsPropagation=rshared"}},

	{advice: "the node's seccomp profile", change: []string{"web/CreateContainer:OCI.Linux.Seccomp={\"DefaultAction\":\"SCMP_ACT_ALLOW\"}"}},
	{advice: "the node's SELinux label", change: []string{"web/CreateContainer:OCI.Process.SelinuxLabel=a:b:c"}},
	{advice: "the runtime sets limits of its own", change: []string{"web/CreateContainer:OCI.Process.Rlimits=[{\"Type\":\"RLIMIT_CORE\",\"Hard\":1,\"Soft\":1}]"}},
	{advice: "hooks are code of the host's", change: []string{"web/CreateContainer:OCI.Hooks={\"Prestart\":[]}"}},
	{advice: "no manifest can ask for this", change: []string{"web/CreateContainer:OCI.Linux.UIDMappings=[{\"ContainerID\":0,\"HostID\":0,\"Size\":1}]"}},
	{advice: "shareProcessNamespace of the pod changed", manifest: [2]string{"spec:\n  hostname", "spec:\n  shareProcessNamespace: true\n  hostname"}},
	{advice: "this is the runtime's doing", change: []string{"web/CreateContainer:OCI.Annotations[io.katacontainers.pkg.oci.container_type]=pod_sandbox"}},
	{advice: "securityContext.readOnlyRootFilesystem", manifest: [2]string{"readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"}},
	{advice: "ids and the root's path", change: []string{"web/CreateContainer:OCI.Root.Path=/"}},
	{advice: "container other exists already", again: "CreateContainerRequest", settings: "strict = {instances = 'free'}"},
	{advice: "container web has to wait", without: "StartContainerRequest", made: []string{"order = 'enforced'"}, settings: "order = 'free'"},
	{advice: "containers come after CreateSandbox", without: "CreateSandboxRequest", settings: "strict = {lifecycle = 'free'}"},
	{advice: "volumeDevices of container web changed", change: []string{"web/CreateContainer:OCI.Linux.Devices=[{\"Path\":\"/dev/x\",\"Type\":\"c\"}]"}},
	{advice: "the node pins CPUs", change: []string{"web/CreateContainer:OCI.Linux.Resources.CPU.Cpus=\"0\""}},
	{advice: "this is the runtime's doing", change: []string{"web/CreateContainer:OCI.Linux.CgroupsPath=/../x"}},
	{advice: "hostNetwork, hostPID or hostIPC", change: []string{"web/CreateContainer:OCI.Linux.Namespaces[0].Path=/proc/1/ns/ipc"}},
	{advice: "privileged or procMount", change: []string{"web/CreateContainer:OCI.Linux.MaskedPaths=[\"/proc/acpi\"]"}},
	{advice: "securityContext.sysctls", manifest: [2]string{"value: \"1024\"", "value: \"1\""}},
	{advice: "a port opens a stream past the policy: stdin of", change: []string{"web/CreateContainer:stdin_port=7"}},
	{advice: "a port opens a stream past the policy: requests.read_stream", change: []string{"web/CreateContainer:stdout_port=7"}, settings: "requests.read_stream = true"},
	{advice: "io.kubernetes.container.restartCount in the annotations", change: []string{"web/CreateContainer:OCI.Annotations[io.kubernetes.container.restartCount]=x"}, settings: "common.annotations.patterns.'io.kubernetes.container.restartCount' = '^x$'"},
	{advice: "volumeDevices or resource limits", change: []string{"web/CreateContainer:devices=[{\"id\":\"\",\"type_\":\"blk\",\"vm_path\":\"/dev/vdb\",\"container_path\":\"/dev/x\",\"options\":[]}]"}},
	{advice: "the pod has another name", manifest: [2]string{"  name: shop\n", "  name: shop2\n"}},
	{advice: "the pod is in another namespace", change: []string{"$sandbox/CreateContainer:OCI.Annotations[io.kubernetes.cri.sandbox-namespace]=other"}},
	{advice: "hostname or hostNetwork of the pod changed", manifest: [2]string{"hostname: front", "hostname: back"}},
	{advice: "hostname or hostNetwork of the pod changed", change: []string{"web/CreateContainer:OCI.Hostname=other"}},
	{advice: "this names the pod", change: []string{"web/CreateContainer:OCI.Annotations[io.katacontainers.pkg.oci.bundle_path]=/evil"}},
	{advice: "the containers of a pod share", change: []string{"web/CreateContainer:OCI.Annotations[io.kubernetes.cri.sandbox-id]=\"1111111111111111111111111111111111111111111111111111111111111111\""}},

	{advice: "the sandbox is the runtime's and the pause image's", change: []string{"$sandbox/CreateContainer:OCI.Process.Args[0]=/bin/sh"}, settings: "generate.pause_args = ['/bin/sh']"},
	{advice: "runAsUser, runAsGroup or groups of the pod changed", manifest: [2]string{"    runAsUser: 1000", "    runAsUser: 1001"}},
	{advice: "runAsUser, runAsGroup or groups of the pod changed", base: [2]string{"    runAsUser: 1000\n    runAsGroup: 1000\n", "    runAsNonRoot: false\n"}, change: []string{"$sandbox/CreateContainer:OCI.Process.User={\"UID\":5,\"GID\":6,\"AdditionalGids\":[6,2000],\"Username\":\"\"}"}, settings: "generate.pause_users = [{UID = 5, GID = 6, AdditionalGids = [6, 2000]}]"},
	{advice: "the runtime or kubelet mounts /etc/hosts", change: []string{"web/CreateContainer:OCI.Mounts[/etc/hosts].source=/etc"}},
	{advice: "the policy has no such container", change: []string{"web/CreateContainer:OCI.Annotations[io.kubernetes.cri.container-name]=webx"}},
}

// untested are words without a case, and why.
var untested = map[string]string{
	"$(key) is gone from the annotations of the pod template: put it back, or regenerate the policy with genpolicy": "annotations of a pod reach the guest only where containerd is told to pass them on (pod_annotations); TestEachChangeIsNamed has the words",
}
