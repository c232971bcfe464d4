// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"encoding/json"
	"path"
	"regexp"
	"slices"
	"strings"

	"portcullis/rules/explain"
	"portcullis/rules/policydata"
)

// maxValue is the length of the longest value that is learned, in bytes: the recording holds what the host likes.
const maxValue = 512

// question is one finding of a request that was denied.
type question struct {
	explain.Finding
	container string // name in the policy
	paths     string // key of common.paths that the container has
	storages  []policydata.Storage
	id        string // container_id of the request
	input     *request
}

// request is what lessons need of a CreateContainerRequest or CreateSandboxRequest beside the finding.
type request struct {
	ContainerID string               `json:"container_id"`
	Storages    []policydata.Storage `json:"storages"`
	OCI         struct {
		Process struct {
			User policydata.User
		}
		Mounts []policydata.ExactMount
	}
}

// template is the key of the settings that hold what the runtime adds to this container.
func (q *question) template() string {
	if q.container == policydata.SandboxContainer {
		return "sandbox"
	}
	return "container"
}

// inside is what the brackets of the place hold: OCI.Annotations[KEY].
func (q *question) inside() string {
	_, rest, _ := strings.Cut(q.Path, "[")
	if i := strings.LastIndex(rest, "]"); i >= 0 {
		return rest[:i]
	}
	return ""
}

// wants says whether the policy wants something of a kind not to be there at all.
func (q *question) wants(kind string) bool { return explain.Words(q.Wanted) == "no such "+kind }

// got is what the request has, where that is a string fit to be in settings.
func (q *question) got() (string, bool) {
	s, ok := q.Got.(string)
	return s, ok && printable(s)
}

var plainText = regexp.MustCompile(`^[ -~]*$`)

func printable(s string) bool { return len(s) <= maxValue && plainText.MatchString(s) }

// learnable are the settings that a container runtime may ask for, by check of the rules and what the place begins with.
var learnable = []struct {
	check, path string
	lesson      func(*question) (Lesson, bool)
}{
	{"process", "OCI.Version", ociVersion},
	{"process", "OCI.Process.ApparmorProfile", appArmor},
	{"process", "OCI.Process.User.", pauseUser},
	{"paths", "OCI.Linux.MaskedPaths[", morePath},
	{"paths", "OCI.Linux.ReadonlyPaths[", morePath},
	{"sysctl", "OCI.Linux.Sysctl[", sysctl},
	{"identity", "OCI.Annotations[io.katacontainers.pkg.oci.bundle_path]", bundlePath},
	{"annotations", "OCI.Annotations[", annotation},
	{"env", "OCI.Process.Env[", variable},
	{"mounts", "OCI.Mounts[", mount},
	{"mounts", "OCI.Mounts[", emptyDir},
	{"storages", "storages", emptyDir},
	{"storages", "storages", sandboxStorages},
}

// lessonOf looks a finding up. It is false for what binds the owner's word.
func lessonOf(q *question) (Lesson, bool) {
	for _, l := range learnable {
		if l.check != q.Check || !strings.HasPrefix(q.Path, l.path) {
			continue
		}
		if lesson, ok := l.lesson(q); ok {
			return lesson, true
		}
	}
	return Lesson{}, false
}

var (
	version = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+([-+][0-9A-Za-z.-]+)?$`)
	profile = regexp.MustCompile(`^[A-Za-z0-9._-]*$`)
)

func ociVersion(q *question) (Lesson, bool) {
	got, ok := q.got()
	return Lesson{Key: []string{"common", "oci_versions"}, Value: got, More: true}, ok && version.MatchString(got)
}

// appArmor learns a profile's name, of which the guest loads none.
func appArmor(q *question) (Lesson, bool) {
	got, ok := q.got()
	return Lesson{Key: []string{"common", "apparmor"}, Value: got, More: true}, ok && profile.MatchString(got)
}

// pauseUser learns the user of the node's pause image: with no group but its own. The settings count only where the pod names no
// user, so that a pod's own cannot be loosened by it.
func pauseUser(q *question) (Lesson, bool) {
	user := q.input.OCI.Process.User
	ids := []any{}
	for _, id := range user.AdditionalGids {
		if id != user.GID {
			return Lesson{}, false
		}
		ids = append(ids, id)
	}
	value := map[string]any{"UID": user.UID, "GID": user.GID, "AdditionalGids": ids}
	return Lesson{Key: []string{"generate", "pause_users"}, Value: value, More: true, Rank: Looser},
		q.container == policydata.SandboxContainer && len(ids) < 2
}

// kernelPath is a path that no image or volume has: what is hidden elsewhere are the owner's files.
var kernelPath = regexp.MustCompile(`^/(proc|sys)/[A-Za-z0-9_./:-]+$`)

// morePath learns that a runtime hides one path of the kernel more. That one is missing is never learned.
func morePath(q *question) (Lesson, bool) {
	value := "^" + regexp.QuoteMeta(q.inside()) + "$"
	key := []string{"common", "paths", q.paths, "optional"}
	return Lesson{Key: key, Value: value, More: true}, q.wants("path") && q.paths != "" && printable(q.inside()) &&
		kernelPath.MatchString(q.inside()) && path.Clean(q.inside()) == q.inside()
}

// sysctls are what containerd sets by itself, each of the pod's own network.
var sysctls = []string{"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range"}

func sysctl(q *question) (Lesson, bool) {
	got, ok := q.got()
	key := []string{"generate", q.template(), "sysctl", q.inside()}
	return Lesson{Key: key, Value: got, Rank: Exact}, ok && q.wants("sysctl") && slices.Contains(sysctls, q.inside())
}

// bundlePath learns containerd's state directory.
func bundlePath(q *question) (Lesson, bool) {
	got, ok := q.got()
	dir, id := path.Split(got)
	ok = ok && path.IsAbs(got) && path.Clean(got) == got && id == q.id && id != "" && !strings.Contains(dir, "$(")
	return Lesson{Key: []string{"common", "bundle_path"}, Value: dir + "$(container-id)", Rank: Exact}, ok
}

// runtimeKey is an annotation of a container runtime that nothing in the guest acts on. Those of Kata and of CDI are acted on.
var runtimeKey = regexp.MustCompile(`^(io\.kubernetes\.cri\.|io\.kubernetes\.container\.|nerdctl/|kubernetes\.io/|kubectl\.kubernetes\.io/|cni\.)`)

func annotation(q *question) (Lesson, bool) {
	got, ok := q.got()
	key := []string{"common", "annotations", "patterns", q.inside()}
	value := "^" + regexp.QuoteMeta(got) + "$"
	return Lesson{Key: key, Value: value, Rank: Exact},
		ok && q.wants("annotation") && printable(q.inside()) && runtimeKey.MatchString(q.inside())
}

// platformVariable is a variable that the kubelet or runtime sets and that no loader, shell or language acts on.
var platformVariable = regexp.MustCompile(`^(KUBERNETES_[A-Z0-9_]+|TERM)$`)

func variable(q *question) (Lesson, bool) {
	got, ok := q.got()
	value := "^" + regexp.QuoteMeta(strings.TrimPrefix(got, q.inside()+"=")) + "$"
	return Lesson{Key: []string{"common", "env", "names", q.inside()}, Value: value, Rank: Exact},
		ok && q.wants("variable") && platformVariable.MatchString(q.inside())
}

// hostFiles are mounts whose contents only the host chooses, whatever their options; what they are mounted from is bound still.
var hostFiles = []string{"/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/dev/termination-log", "/sys/fs/cgroup"}

// harmless are mount options that choose neither what is mounted nor where it goes.
var harmless = []string{"bind", "rbind", "ro", "rw", "nosuid", "nodev", "noexec", "relatime", "noatime", "private", "rprivate", "nsdelegate", "memory_recursiveprot"}

// mount learns the options of a mount of the runtime, or a cgroup mount that it adds. Read-only stays read-only.
func mount(q *question) (Lesson, bool) {
	destination, what := q.inside(), q.Path[strings.LastIndex(q.Path, "]")+1:]
	i := slices.IndexFunc(q.input.OCI.Mounts, func(m policydata.ExactMount) bool { return m.Destination == destination })
	if i < 0 || !slices.Contains(hostFiles, destination) {
		return Lesson{}, false
	}
	m := q.input.OCI.Mounts[i]
	options := []any{}
	for _, o := range m.Options {
		if !slices.Contains(harmless, o) {
			return Lesson{}, false
		}
		options = append(options, o)
	}
	key := []string{"generate", q.template(), "mounts", destination}
	switch {
	case what == ".options":
		wanted, _ := json.Marshal(q.Wanted)
		writable := func(s []string) bool { return !slices.Contains(s, "ro") }
		var before []string
		ok := json.Unmarshal(wanted, &before) == nil && writable(before) == writable(m.Options)
		return Lesson{Key: append(key, "options"), Value: options, Rank: Looser}, ok
	case what == "" && q.wants("mount") && destination == "/sys/fs/cgroup" && m.Type == "cgroup" && m.Source == "cgroup" && slices.Contains(m.Options, "ro"):
		value := map[string]any{"type_": "cgroup", "from": "exact", "source": "cgroup", "options": options}
		return Lesson{Key: key, Value: value, Rank: Looser}, true
	}
	return Lesson{}, false
}
