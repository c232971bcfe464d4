// SPDX-License-Identifier: Apache-2.0

package review

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"portcullis/rules"
	"portcullis/rules/policydata"
)

// Level is how much a reviewer should care.
type Level string

// Values of Level, the most severe first.
const (
	Grave Level = "grave" // the policy does not protect what its owner thinks
	Look  Level = "look"  // right only if it is meant so
	Note  Level = "note"
)

// Warning is something worth a reviewer's look.
type Warning struct {
	Level     Level
	Container string // "" for the policy as a whole
	Text      string

	rank int // among those of a level: what is worth more comes first
}

// Ranks of grave warnings; what has none comes first.
const (
	rankPolicy = iota
	rankPrivileged
	rankSkipped
	rankMounts
	rankImages
	rankSecrets
	rankOther
)

// Warnings lists what is worth a look, the most severe first.
func (s *Subject) Warnings() []Warning {
	var w warnings
	s.warnPolicy(&w)
	if s.Data != nil {
		w.data(s.Data)
	}
	return w.sorted()
}

// Of lists what is worth a look in policy_data, the most severe first: what [Subject.Warnings] has beside what it says of the rules.
func Of(p *policydata.Policy) []Warning {
	var w warnings
	w.data(p)
	return w.sorted()
}

func (w *warnings) data(p *policydata.Policy) {
	for _, name := range sorted(p.Containers) {
		w.container(p, name)
	}
	w.requests(p)
	w.strictness(p)
	for i := range p.Issuers {
		for _, words := range updates(&p.Issuers[i]) {
			w.add(Look, "", "May be updated: %s.", words)
		}
	}
}

func (w *warnings) sorted() []Warning {
	slices.SortStableFunc(w.list, func(a, b Warning) int {
		return cmp.Or(strings.Compare(order(a.Level), order(b.Level)), cmp.Compare(a.rank, b.rank))
	})
	return w.list
}

func order(l Level) string { return map[Level]string{Grave: "0", Look: "1", Note: "2"}[l] }

type warnings struct{ list []Warning }

func (w *warnings) add(level Level, container, format string, args ...any) {
	w.list = append(w.list, Warning{Level: level, Container: container, Text: fmt.Sprintf(format, args...)})
}

// grave adds a grave warning with its rank.
func (w *warnings) grave(rank int, container, format string, args ...any) {
	w.list = append(w.list, Warning{Grave, container, fmt.Sprintf(format, args...), rank})
}

func (s *Subject) warnPolicy(w *warnings) {
	if s.Waives {
		w.add(Grave, "", "AllowRequestsFailingPolicy is true: denials are only warnings, everything is allowed.")
	}
	if s.stance("SetPolicyRequest") != rules.Denied {
		w.add(Grave, "", "SetPolicyRequest is not denied: the host may replace this policy.")
	}
	if s.stance("ExecProcessRequest") == rules.Allowed {
		w.add(Grave, "", "ExecProcessRequest is allowed whatever it holds: the host may run any command in any container.")
	}
	if s.stance("CreateContainerRequest") == rules.Allowed {
		w.add(Grave, "", "CreateContainerRequest is allowed whatever it holds: the host may run any container.")
	}
	switch {
	case s.Rules == Unknown && s.Data != nil:
		w.add(Look, "", "The rules are from another tool: what is said here is how this project's rules would read the data, and the policy's own rules may differ.")
	case s.Rules == Unknown:
		w.add(Look, "", "The rules are from another tool and the policy has no data that could be read: they have to be read themselves.")
	case s.Rules == Like:
		w.add(Look, "", "The rules are not those of this release, nor of its rules for upstream's data: compare their digest with that of a release.")
	case s.Rules == HeldUpstream:
		w.add(Note, "", "The data is in upstream's shape, which cannot say that a mount, a variable or an image must be there.")
	}
}

func (w *warnings) requests(p *policydata.Policy) {
	r := p.Requests
	if r.Exec.Terminal && len(r.Exec.Commands)+len(r.Exec.Joined) > 0 {
		w.add(Look, "", "Commands that are allowed in every container may have a terminal.")
	}
	for _, argv := range r.Exec.Commands {
		w.add(Look, "", "The host may run “%s” in every container.", commandLine(argv))
	}
	for _, pattern := range r.Exec.Joined {
		w.add(Grave, "", "The host may run every command that matches “%s” in every container.", pattern)
	}
	if r.WriteStream || r.Exec.Stdin {
		w.add(Look, "", "The host may write to the standard input of processes.")
	}
	if r.ReadStream {
		w.add(Note, "", "Output of all processes is open to the host: kubectl logs works, and so does reading what a workload prints.")
	}
	for _, name := range r.Allow {
		w.add(Look, "", "%s is allowed whatever it holds.", name)
	}
	if r.GetDiagnosticData {
		w.add(Look, "", "The host may ask for diagnostic data.")
	}
	if len(r.CopyFile) > 0 && !bindsContents(p) {
		w.add(Note, "", "The content of files that the host copies in is not bound: ConfigMaps, Secrets and projected volumes are what the host makes them.")
	}
	switch p.Sandbox.Hostname {
	case "":
		w.add(Look, "", "The host name is not bound.")
	case "^$":
		w.add(Look, "", "The pod has no host name of its own (hostNetwork: Kata gives the pod a network of its own all the same).")
	}
	if p.Sandbox.Namespace == "" {
		w.add(Note, "", "The namespace is not bound: the pod may run in any, and keeps it.")
	}
	if regexp.MustCompile(p.Sandbox.Name).MatchString("any-name-at-all.of.a.pod-xyz") {
		w.add(Note, "", "The name of the pod is not bound: “%s” matches any.", p.Sandbox.Name)
	}
}

// strictness tells where the policy holds requests to less than it could.
func (w *warnings) strictness(p *policydata.Policy) {
	for _, s := range strictWords(p.Strict) {
		if s.Level != policydata.Required {
			switch {
			case s.Level != policydata.Free:
				w.add(Look, "", "%s", s.Words)
			case s.Key == "image": // whatever else is bound, the host says what runs
				w.grave(rankPolicy, "", "%s", s.Words)
			default: // a setting of the cluster; what is wrong with this pod comes before it
				w.grave(rankOther, "", "%s", s.Words)
			}
		}
	}
	after := slices.ContainsFunc(slices.Collect(maps.Values(p.Containers)), func(c *policydata.Container) bool {
		return slices.ContainsFunc(c.After, func(a policydata.After) bool { return a.State == policydata.Succeeded })
	})
	if after && p.Order == policydata.OrderFree {
		w.grave(rankSkipped, "", "Init containers can be skipped: containers may come in any order (order = \"free\").")
	}
}

// strictWord is one key of policydata.Strict with what it gives away.
type strictWord struct {
	Key   string
	Level policydata.Level
	Words string
}

func strictWords(s policydata.Strict) []strictWord {
	return []strictWord{
		{"annotations", s.Annotations, "Annotations may be missing, or added by the runtime (strict.annotations)."},
		{"container_id", s.ContainerID, "The id of a container need not be the one in its root path (strict.container_id)."},
		{"env", s.Env, "Variables of containers may be missing (strict.env)."},
		{"exec_env", s.ExecEnv, "Variables of commands may be missing (strict.exec_env)."},
		{"image", s.Image, "The image that a container names is not held to the policy, or may be left out (strict.image)."},
		{"instances", s.Instances, "A container may be created more than once (strict.instances)."},
		{"lifecycle", s.Lifecycle, "Requests may name containers that do not exist (strict.lifecycle)."},
		{"mounts", s.Mounts, "Mounts may be missing: a volume can be withheld (strict.mounts)."},
		{"paths", s.Paths, "More paths than the policy names may be masked (strict.paths)."},
		{"storages", s.Storages, "Storages of the sandbox may be missing (strict.storages)."},
		{"sysctl", s.Sysctl, "Sysctls may be missing (strict.sysctl)."},
	}
}

// secretName is a variable that looks as if its value were one.
var secretName = regexp.MustCompile(`(?i)(passw|secret|token|api_?key|private_?key|credential)`)

// openPattern matches more than a pattern for a variable should.
var openPattern = regexp.MustCompile(`^\^\(?(?:\?s:)?\.[*+]\)?\$$`)

func (w *warnings) container(p *policydata.Policy, name string) {
	c := p.Containers[name]
	if !c.ImageBound() {
		w.grave(rankImages, name, "The image's content is %s.", content(c))
	}
	w.rights(p, name)
	w.mounts(name, c)
	if c.Stdin {
		w.add(Look, name, "The host may write to its standard input.")
	}
	var clear, secrets []string
	for _, entry := range c.Env.Fixed {
		key, value, _ := strings.Cut(entry, "=")
		switch {
		case value == "" || key == "PATH":
		case !secretName.MatchString(key):
			clear = append(clear, key)
		default:
			secrets = append(secrets, key)
		}
	}
	if len(secrets) > 0 {
		w.grave(rankSecrets, name, "In the policy in clear, and so known to the host: %s.", strings.Join(secrets, ", "))
	}
	if len(clear) > 0 {
		w.add(Note, name, "Values that stand in the policy in clear, whatever they come from: %s.", strings.Join(clear, ", "))
	}
	w.variables(name, c)
	if len(c.Devices) > 0 {
		w.grave(rankMounts, name, "The content of block devices comes from the host: %s.", strings.Join(c.Devices, ", "))
	}
	if c.VFIO.Count > 0 {
		w.add(Look, name, "Is given devices: what they do is not bound.")
	}
	if c.OCI.Process.User.UID == 0 && c.Type == policydata.TypeContainer {
		w.add(Note, name, "Runs as root.")
	}
}

// rights tells of what a process may beyond the usual; privileged is one line.
func (w *warnings) rights(p *policydata.Policy, name string) {
	c := p.Containers[name]
	extra := extraCapabilities(p, c)
	unmasked := len(p.Common.Paths[c.Paths].Masked) == 0 && c.Type == policydata.TypeContainer
	if unmasked && slices.Contains(extra, "CAP_SYS_ADMIN") {
		w.grave(rankPrivileged, name, "Is privileged: all capabilities, no path of the kernel masked; it can change the guest around it.")
		return
	}
	if len(extra) > 0 {
		w.add(Look, name, "Has capabilities beyond the usual: %s.", strings.Join(extra, ", "))
	}
	if unmasked {
		w.add(Look, name, "No path of the kernel is masked, as in a privileged container.")
	}
}

// platformFile are the files that every container gets from the host.
var platformFile = map[string]bool{
	"/etc/hosts": true, "/etc/hostname": true, "/etc/resolv.conf": true, "/dev/termination-log": true,
}

const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

// mounts tells of what the host fills.
func (w *warnings) mounts(name string, c *policydata.Container) {
	var filled, chosen []string
	for _, destination := range sorted(c.Mounts) {
		m := c.Mounts[destination]
		switch {
		case m.From == policydata.MountExact && path.Clean(m.Source) == "/dev":
			w.add(Look, name, "Sees /dev of the guest at %s, in which are the devices of its TPM or TEE.", destination)
		case m.From != policydata.MountShared || platformFile[destination]:
		case m.Contents != nil && !m.Contents.Open && access(m.Options) == "read-only":
			for _, key := range m.Contents.Unknown() {
				chosen = append(chosen, path.Join(destination, key))
			}
		case destination == serviceAccount:
			w.add(Note, name, "The token and certificate in %s come from the host.", destination)
		default:
			filled = append(filled, destination)
		}
	}
	if len(filled) > 0 {
		w.grave(rankMounts, name, "The host fills, reads and may change %s.", strings.Join(filled, ", "))
	}
	if len(chosen) > 0 {
		w.grave(rankMounts, name, "The host chooses what is in %s.", strings.Join(chosen, ", "))
	}
}

// variables tells of what the host may choose in variables and arguments.
func (w *warnings) variables(name string, c *policydata.Container) {
	for _, patterns := range []map[string]string{c.Env.Patterns, c.Env.Optional} {
		for _, key := range sorted(patterns) {
			switch {
			case !openPattern.MatchString(patterns[key]):
			case secretName.MatchString(key):
				w.grave(rankOther, name, "%s may have any value: the host may choose this secret.", key)
			default:
				w.add(Look, name, "%s may have any value.", key)
			}
		}
	}
	for _, key := range sorted(c.Env.Hashes) {
		w.add(Note, name, "%s is bound by the hash of its value, from which a short one can be guessed.", key)
	}
	for _, i := range sorted(c.ArgMatches) {
		if m := c.ArgMatches[i]; m.Template == "" {
			w.add(Look, name, "The host may choose argument %s within %s.", i, m.Pattern)
		}
	}
}

// usual are the capabilities that container runtimes give by default.
var usual = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// extraCapabilities are those in any set that are not usual.
func extraCapabilities(p *policydata.Policy, c *policydata.Container) []string {
	sets := p.Common.Capabilities[c.Capabilities]
	var extra []string
	for _, name := range slices.Concat(sets.Ambient, sets.Bounding, sets.Effective, sets.Inheritable, sets.Permitted) {
		if !slices.Contains(usual, name) && !slices.Contains(extra, name) {
			extra = append(extra, name)
		}
	}
	return slices.Sorted(slices.Values(extra))
}

// bindsContents reports whether the policy holds any mount to contents.
func bindsContents(p *policydata.Policy) bool {
	for _, c := range p.Containers {
		for _, m := range c.Mounts {
			if m.Contents != nil {
				return true
			}
		}
	}
	return false
}
