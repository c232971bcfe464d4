// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"
	"strings"

	"portcullis/rules/policydata"
)

const (
	regenerate = "regenerate the policy with genpolicy"
	undo       = "undo that, or " + regenerate

	noContainer = "no container was created under this id: look for an earlier denial of its CreateContainerRequest"

	sandboxRuntimes = "the sandbox is the runtime's and the pause image's: choose the settings of this platform (genpolicy --platform)"
	pauseUser       = "runAsUser, runAsGroup or groups of the pod changed: undo that; or the node's pause image has another user: " +
		"list it in generate.pause_users of the settings, with UID, GID and AdditionalGids as the request has them"
	runtimeMount = "the runtime or kubelet mounts $(key) in every container: choose the settings of this platform (genpolicy --platform)"

	copiedTwice = "an emptyDir is no directory of the guest, or one for each container: where Kata copies it so (disable_guest_empty_dir = true before " +
		"4.1), set that to false, or generate.empty_dir = \"shared\" in the settings; else undo what changed in volumes"

	runtimes = "this is the runtime's doing, no manifest's: choose the settings of this platform (genpolicy --platform)"
)

// advised is what to change when a check fails at a place.
type advised struct {
	kind  string // entry point; empty for any
	check string // empty for any
	path  string // what the place begins with
	got   Phrase // what the request has; empty for whatever
	want  Phrase // what the policy wants; empty for whatever
	words string
}

// advices are looked through in order: the first that fits counts. In the words
// $(where) is the container, $(key) what the place's brackets hold.
var advices = []advised{
	{kind: execKind, check: "command", path: "process.Terminal", words: "a probe or hook has no terminal (kubectl exec -t): call it without, or list it in requests.exec.commands of the settings with exec.terminal"},
	{kind: execKind, check: "command", words: "to allow it, make it an exec probe or hook of $(where), or list it in requests.exec.commands of the settings"},
	{kind: execKind, check: "args", words: "to allow it, make it an exec probe or hook of $(where), or list it in requests.exec.commands of the settings"},
	{kind: execKind, check: "env", words: "a command gets the environment of $(where): look at $(key) in its env and envFrom, or " + regenerate},
	{kind: execKind, check: "stdio", path: "exec_id", words: runtimes},
	{kind: execKind, check: "stdio", words: "a port opens a stream past the policy: requests.exec.stdin and requests.read_stream in the settings allow it"},
	{kind: execKind, check: "container", words: noContainer},
	{kind: execKind, words: "a command runs as $(where) does (user, directory, rights), whoever asks for it: a policy cannot allow more"},

	{kind: copyKind, check: "content", path: "path", want: `the one directory of an emptyDir; genpolicy's generate.empty_dir = "shared" takes one for each container`, words: copiedTwice},
	{kind: copyKind, check: "content", words: "the file is not the one the policy was made with: undo the change of the ConfigMap or Secret, or " + regenerate},
	{kind: copyKind, check: "mode", words: "defaultMode of the volume, or mode of one of its items, sets a set-id bit: take it out"},
	{kind: copyKind, check: "link", words: "a link may lead to a file of its own volume only: take it out of the volume"},
	{kind: copyKind, words: "files may go below the volumes of the shared directory only: requests.copy_file in the settings lists where"},

	{kind: sandboxKind, check: "plain", path: "sandbox_pidns", words: "shareProcessNamespace of the pod decides this: " + undo},
	{kind: sandboxKind, check: "plain", path: "guest_hook_path", words: "hooks are the host's code in the guest: take guest_hook_path out of Kata's configuration"},
	{kind: sandboxKind, check: "plain", path: "kernel_modules", words: "modules are the host's code in the guest: take kernel_modules out of Kata's configuration"},
	{kind: sandboxKind, check: "storages", words: "the sandbox's storages are those of the platform: choose its settings (genpolicy --platform), or sandbox.storages there"},
	{kind: sandboxKind, check: "once", words: "the sandbox exists already: a second one in the same guest is refused"},

	{kind: "ReadStreamRequest", words: "genpolicy -j logs opens what processes print to the host (kubectl logs)"},
	{kind: "WriteStreamRequest", words: "stdin: true of the container opens its input to the host; genpolicy -j exec opens that of commands"},
	{kind: "CloseStdinRequest", words: "stdin: true of the container, or requests.close_stdin in the settings, allows it"},
	{kind: "UpdateInterfaceRequest", words: "the guest's loopback is its own, and more than this no network needs: look at the node's network plugin; requests.interface in the settings says what is forbidden"},
	{kind: "UpdateRoutesRequest", words: "the guest's loopback is its own, and more than this no network needs: look at the node's network plugin; requests.routes in the settings says what is forbidden"},
	{kind: "AddARPNeighborsRequest", words: "the guest's loopback is its own, and more than this no network needs: look at the node's network plugin; requests.arp in the settings says what is forbidden"},

	{check: "env", got: missing, words: "set $(key) in env of $(where) again, or " + regenerate},
	{check: "env", want: "no such variable", words: "$(key) is not in env of $(where) and its image has none: take it out where it is put in (a webhook, the runtime), add it to env and " + regenerate + ", or allow it in common.env.names of the settings, with a pattern of its value"},
	{check: "env", got: twice, words: "name $(key) once only in env of $(where): look at env, envFrom and webhooks"},
	{check: "env", words: "$(key) of $(where): look at env, envFrom and webhooks; give it the value that the policy was made with, or " + regenerate},
	{check: "args", words: "command or args of $(where) (or its image's ENTRYPOINT or CMD) changed: " + undo},
	{check: "image", words: "the image of $(where) changed: deploy the one that the policy names, or " + regenerate + " (--lock-digests binds the content)"},

	{check: "mounts", got: missing, words: "$(key) is no longer in volumeMounts of $(where): mount it again, or " + regenerate},
	{check: "mounts", got: twice, words: "$(key) is mounted twice in $(where): look at volumeMounts and webhooks"},
	{check: "mounts", path: "OCI.Mounts", words: "volumeMounts and volumes of $(where) changed at $(key) (or a webhook's did): " + undo},
	{check: "storages", got: missing, want: "local local", words: copiedTwice},
	{check: "storages", got: missing, words: "a volume of $(where) is gone from volumes or volumeMounts: " + undo},
	{check: "storages", words: "volumes of $(where) changed, or are of another kind on this platform: undo that, or choose its settings (genpolicy --platform)"},

	{check: "process", path: "OCI.Process.Cwd", words: "workingDir of $(where) (or its image's WORKDIR) changed: " + undo},
	{check: "process", path: "OCI.Process.Terminal", words: "tty of $(where) changed: " + undo},
	{check: "process", path: "OCI.Process.NoNewPrivileges", words: "securityContext.allowPrivilegeEscalation of $(where) changed: " + undo},
	{check: "process", path: "OCI.Process.User.UID", words: "securityContext.runAsUser of $(where) or the pod (or the image's USER) changed: " + undo},
	{check: "process", path: "OCI.Process.User.AdditionalGids", words: "runAsGroup of $(where) or the pod, supplementalGroups or fsGroup of the pod (or the image's /etc/group) changed: " + undo},
	{check: "process", path: "OCI.Process.ApparmorProfile", words: "the node sets this profile: list it in common.apparmor of the settings"},
	{check: "process", path: "OCI.Version", words: "the runtime is of a version that the settings do not list: add it to common.oci_versions"},
	{check: "process", words: "securityContext, workingDir and tty of $(where) decide this: " + undo},
	{check: "capabilities", words: "securityContext.capabilities or privileged of $(where) changed: " + undo},

	{check: "propagation", words: "mountPropagation of a mount of $(where) changed: " + undo},
	{check: "plain", path: "OCI.Linux.Seccomp", words: "the node's seccomp profile reaches the guest: disable_guest_seccomp = true in Kata's configuration keeps it out"},
	{check: "plain", path: "OCI.Process.SelinuxLabel", words: "the node's SELinux label reaches the guest: disable_guest_selinux = true in Kata's configuration keeps it out"},
	{check: "plain", path: "OCI.Process.Rlimits", words: "the runtime sets limits of its own: take them out of containerd's or CRI-O's configuration (default ulimits)"},
	{check: "plain", path: "OCI.Hooks", words: "hooks are code of the host's: take them out of the runtime's configuration"},
	{check: "plain", words: "no manifest can ask for this: the host or its runtime added it; take it out there"},
	{check: "type", path: "sandbox_pidns", words: "shareProcessNamespace of the pod changed: " + undo},
	{check: "type", words: runtimes},
	{check: "id", path: "OCI.Root.Readonly", words: "securityContext.readOnlyRootFilesystem of $(where) changed: " + undo},
	{check: "id", words: "ids and the root's path are the runtime's: choose the settings of this platform (genpolicy --platform)"},
	{kind: createKind, check: "sandbox", words: "containers come after CreateSandbox, and into its sandbox; strict.lifecycle = \"free\" in the settings drops that"},
	{check: "instance", words: "$(where) exists already, and is created once at a time; strict.instances = \"free\" in the settings drops that"},
	{check: "order", words: "$(where) has to wait for the containers before it, init containers until they have ended with exit code 0; order = \"free\" in the settings (genpolicy -j unordered) drops that"},
	{check: "linux", path: "OCI.Linux.Devices", words: "volumeDevices of $(where) changed: " + undo},
	{check: "linux", path: "OCI.Linux.Resources.CPU", words: "the node pins CPUs (its static CPU manager): the guest has CPUs of its own, turn that off for this pod"},
	{check: "linux", words: runtimes},
	{check: "namespaces", words: "hostNetwork, hostPID or hostIPC of the pod changed: " + undo},
	{check: "paths", words: "privileged or procMount of $(where) changed, or the runtime's list did: undo that, or set common.paths in the settings"},
	{check: "sysctl", words: "securityContext.sysctls of the pod changed: " + undo},
	{check: "stdio", path: "stdin_port", words: "a port opens a stream past the policy: stdin of $(where) in the manifest allows it"},
	{check: "stdio", words: "a port opens a stream past the policy: requests.read_stream in the settings allows it"},
	{check: "annotations", got: missing, words: "$(key) is gone from the annotations of the pod template: put it back, or " + regenerate},
	{check: "annotations", words: "$(key) in the annotations of the pod template changed, or the runtime added it: undo that, or allow it in common.annotations of the settings"},
	{check: "devices", words: "volumeDevices or resource limits of $(where) changed: " + undo},
	{check: "identity", path: annotationPath("io.kubernetes.cri.sandbox-name"), words: "the pod has another name: deploy it under the name that the policy was made for, or " + regenerate},
	{check: "identity", path: annotationPath("io.kubernetes.cri.sandbox-namespace"), words: "the pod is in another namespace: deploy it where the policy was made for, or " + regenerate},
	{check: "identity", path: "OCI.Hostname", words: "hostname or hostNetwork of the pod changed: " + undo},
	{check: "identity", words: "this names the pod, and is the runtime's: choose the settings of this platform (genpolicy --platform)"},
	{check: "hostname", words: "hostname or hostNetwork of the pod changed: " + undo},
	{check: "pod", words: "the containers of a pod share its name, namespace and network: this one came with another pod's"},
}

// advice says what to change so that the request would be allowed, if it is one that the owner of the pod wants.
func advice(o *ours, f Finding) string {
	if strings.HasPrefix(Words(f.Wanted), "no container has the id") {
		return noContainer
	}
	where := "container " + o.name
	if o.name == policydata.SandboxContainer {
		where = "the pod's sandbox"
		if o.kind == createKind && slices.Contains([]string{"args", "env", "image", "mounts"}, f.Check) {
			return sandboxRuntimes
		}
		if o.kind == createKind && strings.HasPrefix(f.Path, "OCI.Process.User") {
			return pauseUser
		}
	}
	if f.Check == "mounts" && runtimeMounts[insideBrackets(f.Path)] {
		return strings.ReplaceAll(runtimeMount, "$(key)", insideBrackets(f.Path))
	}
	for _, a := range advices {
		if a.fits(o.kind, f) {
			return a.of(where, f)
		}
	}
	return regenerate
}

// runtimeMounts are what no manifest asks for.
var runtimeMounts = map[string]bool{
	"/proc": true, "/dev": true, "/dev/pts": true, "/dev/shm": true, "/dev/mqueue": true, "/sys": true, "/sys/fs/cgroup": true,
	"/etc/hosts": true, "/etc/hostname": true, "/etc/resolv.conf": true, "/dev/termination-log": true,
	"/var/run/secrets/kubernetes.io/serviceaccount": true,
}

func (a advised) fits(kind string, f Finding) bool {
	return (a.kind == "" || a.kind == kind) && (a.check == "" || a.check == f.Check) &&
		strings.HasPrefix(f.Path, a.path) && (a.got == "" || a.got == f.Got) && (a.want == "" || a.want == f.Wanted)
}

func (a advised) of(where string, f Finding) string {
	return strings.NewReplacer("$(where)", where, "$(key)", insideBrackets(f.Path)).Replace(a.words)
}

// insideBrackets is what the last brackets of a path hold: a name.
func insideBrackets(path string) string {
	open, end := strings.LastIndex(path, "["), strings.LastIndex(path, "]")
	if open < 0 || end < open {
		return path
	}
	return path[open+1 : end]
}
