package explain

import (
	"fmt"
	"strings"

	"portcullis/rules/policydata"
)

const anew = "make the policy anew with genpolicy"

// advice says what to change so that the request would be allowed, if it is one
// that the owner of the pod wants.
func advice(o *ours, f Finding) string {
	if f.Check == "reason" {
		return "" // it says so itself
	}
	where := "container " + o.name
	if o.name == policydata.SandboxContainer {
		where = "the pod"
	}
	if o.kind == execKind {
		return execAdvice(o, f, where)
	}
	if o.kind == copyKind {
		return copyAdvice(f)
	}
	key := insideBrackets(f.Path)
	switch f.Check {
	case "env":
		switch f.Got {
		case missing:
			return fmt.Sprintf("set %s in env of %s, or %s", key, where, anew)
		case present:
			return fmt.Sprintf("take %s out of %s (look at env, envFrom and webhooks), or %s", key, where, anew)
		}
		return fmt.Sprintf("give %s of %s the value that the policy was made with, or %s", key, where, anew)
	case "args":
		return fmt.Sprintf("command and args of %s (or its image's ENTRYPOINT and CMD) changed: undo that, or %s", where, anew)
	case "image":
		return fmt.Sprintf("deploy the image of %s that the policy names, or %s (--lock-digests pins it)", where, anew)
	case "mounts":
		if f.Got == missing {
			return fmt.Sprintf("mount %s in volumeMounts of %s again, or %s", key, where, anew)
		}
		return fmt.Sprintf("volumeMounts of %s: look at %s; or %s", where, key, anew)
	case "identity", "pod", "hostname":
		return "name and namespace of the pod come from its metadata: deploy it under the name that the policy was made for, or " + anew
	case "process":
		return fmt.Sprintf("securityContext, workingDir and tty of %s decide this: undo the change, or %s", where, anew)
	case "capabilities":
		return fmt.Sprintf("securityContext.capabilities and privileged of %s decide this: undo the change, or %s", where, anew)
	}
	if words, ok := adviceByCheck[f.Check]; ok {
		return strings.ReplaceAll(words, "$(where)", where)
	}
	return anew
}

// adviceByCheck is for checks whose advice needs no more than the container.
var adviceByCheck = map[string]string{
	"type":        "container and sandbox are told apart by annotations of the runtime, and shareProcessNamespace by sandbox_pidns: check the manifest; else the runtime is not the one of the settings' platform",
	"plain":       "no manifest can ask for this: the host or its runtime added it; if the runtime is trusted to, allow it in the rules",
	"id":          "ids and the root path are the runtime's; readOnlyRootFilesystem of $(where) decides Root.Readonly; else choose the settings of this platform (genpolicy --platform)",
	"instance":    "$(where) exists already: it is created once at a time; strict.instances = \"free\" in the settings drops that",
	"order":       "$(where) came before those it waits for; order = \"free\" in the settings drops that",
	"linux":       "devices come from volumeDevices of $(where), the rest is the runtime's: make the policy anew, or choose the settings of this platform",
	"namespaces":  "hostNetwork, hostPID and hostIPC of the pod decide this: undo the change, or " + anew,
	"paths":       "privileged and procMount of $(where) decide this, and the runtime's version: choose the settings of this platform, or common.paths there",
	"sysctl":      "securityContext.sysctls of the pod decide this: undo the change, or " + anew,
	"stdio":       "a port opens a stream past the policy: stdin of $(where) and requests.read_stream in the settings allow it",
	"annotations": "an annotation of the pod template changed, or the runtime adds one: undo that, or allow it in common.annotations of the settings",
	"devices":     "volumeDevices and resource limits of $(where) decide this: undo the change, or " + anew,
	"storages":    "volumes of $(where) and the platform's settings decide this: undo the change, or choose the settings of this platform",
	"version":     "the runtime's OCI version is not one that the settings list: add it to common.oci_versions",
	"once":        "the sandbox exists already; a second one in the same guest is refused",
}

func execAdvice(o *ours, f Finding, where string) string {
	switch f.Check {
	case "command", "args":
		return fmt.Sprintf("if it is to be allowed, make it an exec probe or hook of %s, or list it in requests.exec.commands of the settings", where)
	case "env":
		return fmt.Sprintf("the environment of a command is that of %s: look at %s there, or make the policy anew", where, insideBrackets(f.Path))
	case "stdio":
		return "a port opens a stream past the policy: requests.exec.stdin and requests.read_stream in the settings allow it"
	}
	return fmt.Sprintf("a command runs as %s does (user, directory, rights): kubectl exec cannot change that", where)
}

func copyAdvice(f Finding) string {
	switch f.Check {
	case "content":
		return "the file is not the one the policy was made with: undo the change of the ConfigMap or Secret, or " + anew
	case "mode":
		return "defaultMode or mode of the volume's items sets a set-id bit: take it out"
	}
	return "files may go below volumes of the shared directory only: requests.copy_file in the settings lists where"
}

// insideBrackets is what the last brackets of a path hold: a name.
func insideBrackets(path string) string {
	open, end := strings.LastIndex(path, "["), strings.LastIndex(path, "]")
	if open < 0 || end < open {
		return path
	}
	return path[open+1 : end]
}
