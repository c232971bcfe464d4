// SPDX-License-Identifier: Apache-2.0

package adversary_test

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"portcullis/internal/emulator/controller"
	"portcullis/internal/emulator/node"
	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/policydata"
)

// facts are what is known of a pod before anything happens: its genuine requests,
// what the manifest says of its files, and what the owner's settings open.
type facts struct {
	create  map[string]*request            // CreateContainer by container name
	execs   map[string][]*request          // ExecProcess by container name
	sandbox *request                       // CreateSandbox
	volumes map[string]map[string]contents // by container name and destination: volumes whose files the manifest has
	policy  *policydata.Policy             // for what the owner's settings open: requests, order, strictness
	chosen  []rules.HostChosen
	closed  map[string]bool // kinds of requests that are denied unless the owner opens them
}

// contents are the files of a volume, by path below the mount; "" where it is a file. Without files and not open it stays empty.
type contents struct {
	files map[string]content
	open  bool // others may be there too
}

type content struct {
	sha      string
	size     int
	optional bool
}

// newFacts reads a manifest; declared are the volumes that an image declares.
func newFacts(p *pod, m *controller.Manifest, n *node.Node, declared func(image string) []string) *facts {
	f := &facts{
		create: map[string]*request{}, execs: map[string][]*request{}, volumes: map[string]map[string]contents{},
		policy: p.policy, chosen: rules.HostChosenFields(), closed: map[string]bool{},
	}
	for _, entry := range rules.Entries() {
		f.closed[entry.Request] = entry.Default == rules.Denied
	}
	for _, e := range p.life {
		switch e.kind {
		case "CreateSandboxRequest":
			f.sandbox = e.request
		case "CreateContainerRequest":
			f.create[nameOf(e.input)] = e.request
		case "ExecProcessRequest":
			name := p.container(e.id())
			f.execs[name] = append(f.execs[name], e.request)
		}
	}
	if len(p.policy.Requests.CopyFile) > 0 { // else the host shares files and nothing holds them
		made := m.Pod(n, 0, controller.Identity{})
		for _, c := range slices.Concat(made.Spec.InitContainers, made.Spec.Containers) {
			f.volumes[c.Name] = volumesOf(made, c)
			for _, destination := range declared(c.Image) {
				if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return path.Clean(m.MountPath) == destination }) {
					f.volumes[c.Name][destination] = contents{}
				}
			}
		}
	}
	return f
}

// volumesOf are the volumes of a container whose files the manifest has.
func volumesOf(p controller.Pod, c corev1.Container) map[string]contents {
	out := map[string]contents{}
	for _, m := range c.VolumeMounts {
		i := slices.IndexFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
		all, bound := contentsOf(p, p.Spec.Volumes[i])
		if m.SubPath != "" {
			file, ok := all.files[m.SubPath]
			all, bound = contents{files: map[string]content{"": file}}, ok
		}
		if bound {
			out[m.MountPath] = all
		}
	}
	return out
}

// contentsOf are the files of a volume, and false where the manifest has none of them.
func contentsOf(p controller.Pod, v corev1.Volume) (contents, bool) {
	out := contents{files: map[string]content{}}
	add := func(source map[string]string, items []corev1.KeyToPath, known bool) {
		if !known {
			out.open = true
			return
		}
		if items == nil {
			for key := range source {
				items = append(items, corev1.KeyToPath{Key: key, Path: key})
			}
		}
		for _, item := range items {
			data := source[item.Key]
			sum := sha256.Sum256([]byte(data))
			out.files[path.Clean(item.Path)] = content{sha: hex.EncodeToString(sum[:]), size: len(data)}
		}
	}
	configMap := func(name string, items []corev1.KeyToPath) {
		m, _ := p.Objects.ConfigMaps.In(p.Namespace, name)
		if m == nil {
			add(nil, items, false)
			return
		}
		add(m.Data, items, true)
	}
	secret := func(name string, items []corev1.KeyToPath) {
		s, _ := p.Objects.Secrets.In(p.Namespace, name)
		if s == nil {
			add(nil, items, false)
			return
		}
		data := maps.Clone(s.StringData)
		if data == nil {
			data = map[string]string{}
		}
		for key, value := range s.Data {
			if _, ok := data[key]; !ok {
				data[key] = string(value)
			}
		}
		add(data, items, true)
	}
	switch {
	case v.ConfigMap != nil:
		configMap(v.ConfigMap.Name, v.ConfigMap.Items)
	case v.Secret != nil:
		secret(v.Secret.SecretName, v.Secret.Items)
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			switch {
			case s.ConfigMap != nil:
				configMap(s.ConfigMap.Name, s.ConfigMap.Items)
			case s.Secret != nil:
				secret(s.Secret.Name, s.Secret.Items)
			default:
				out.open = true
			}
		}
	}
	return out, len(out.files) > 0 || v.EmptyDir != nil // which stays empty
}

// weak is true where the owner's settings give up what the rules say of a thing.
func weak(l policydata.Level) bool { return l != policydata.Required }

// about says what the names in the written list stand for in a CreateContainer.
func (f *facts) about(got, genuine object) rulestest.About {
	annotation := func(key string) string { return str(at(got, "OCI", "Annotations", "io.kubernetes.cri."+key)) }
	quoted := regexp.QuoteMeta
	host := f.policy.Sandbox.Hostname
	switch host {
	case policydata.PodHostname:
		host = quoted(strings.TrimRight(annotation("sandbox-name")[:min(63, len(annotation("sandbox-name")))], "-."))
	case "":
		host = "(?s:.*)"
	default:
		host = strings.TrimSuffix(strings.TrimPrefix(host, "^"), "$")
	}
	uid := quoted(annotation("sandbox-uid"))
	if uid == "" {
		uid = `[0-9a-f-]+`
	}
	names := map[string]string{
		"id": quoted(str(got["container_id"])), "pod name": f.policy.Sandbox.Name, "host name": host,
		"namespace": quoted(annotation("sandbox-namespace")), "name": quoted(annotation("sandbox-name")), "uid": uid,
		"network namespace": `\{"Path":"/run/netns/podns","Type":"network"\}`,
		"shared":            `/run/kata-containers/shared/containers(/passthrough)?(/watchable)?`,
		"file":              `[^/]+`,
		"optional mounts":   `.*"destination":"(/var/run/secrets/kubernetes\.io/serviceaccount|/var/run/secrets/azure/tokens)".*|.*"options":\[[^\]]*"rshared".*`,
		"of the node":       ofTheNode(genuine),
		"propagation":       propagation(genuine),
		"masked":            masked(got),
		"no new privileges": text(at(genuine, "OCI", "Process", "NoNewPrivileges")),
	}
	return rulestest.About{Names: names, Where: func(where string, d rulestest.Deviation) bool { return f.where(got, genuine, where, d) }}
}

// effective leaves out what the image says of variables that the pod sets too, where the pod's comes later: runtimes send both or
// the pod's alone, and the last of a name counts.
func (f *facts) effective(container string, process any) {
	env := list(at(process, "Env"))
	own := env[:0:0]
	for i, e := range env {
		name, _, _ := strings.Cut(str(e), "=")
		later := slices.ContainsFunc(env[i+1:], func(o any) bool { return strings.HasPrefix(str(o), name+"=") })
		if !later || !slices.Contains(f.policy.Containers[container].Env.Shadowed, str(e)) {
			own = append(own, e)
		}
	}
	if p, ok := process.(object); ok {
		p["Env"] = own
	}
}

// where is true for what a field is free of.
func (f *facts) where(got, genuine object, where string, d rulestest.Deviation) bool {
	sandbox := nameOf(genuine) == policydata.SandboxContainer
	path := str(at(d.In, "container_path"))
	if path == "" { // a whole device
		path = str(at(d.Want, "container_path"))
	}
	switch where {
	case "sandbox":
		return sandbox
	case "terminal":
		return at(genuine, "OCI", "Process", "Terminal") == true
	case "open stream":
		return d.Path == "stdin_port" && f.policy.Containers[nameOf(genuine)].Stdin || d.Path != "stdin_port" && f.policy.Requests.ReadStream
	case "unprivileged":
		return len(list(at(genuine, "OCI", "Linux", "MaskedPaths"))) > 0
	case "mount that spreads":
		for _, m := range list(at(genuine, "OCI", "Mounts")) {
			if at(m, "destination") == at(d.In, "destination") {
				return slices.ContainsFunc(list(at(m, "options")), func(o any) bool { return o == "rslave" || o == "rshared" })
			}
		}
		return false
	case "control groups":
		return str(at(d.In, "destination")) == "/sys/fs/cgroup"
	case "passed through":
		return strings.HasPrefix(path, "/dev/vfio")
	case "block device":
		return !strings.HasPrefix(path, "/dev/vfio")
	case "privileged sandbox":
		return sandbox && str(at(d.In, "destination")) == "/sys"
	case "shared file, emptyDir of the guest": // of which formless knows the forms
		want, got := sharedPath.FindStringSubmatch(str(d.Want)), sharedPath.FindStringSubmatch(str(d.Got))
		return want != nil && got != nil && want[1] != "sandbox" && got[1] != "sandbox" && want[3] == got[3]
	}
	return false
}

// ofTheNode matches what the manifest asks of the node.
func ofTheNode(genuine object) string {
	var out []string
	for _, e := range list(at(genuine, "OCI", "Process", "Env")) {
		name, value, _ := strings.Cut(str(e), "=")
		switch {
		case strings.HasSuffix(name, "_IP") || strings.HasSuffix(name, "IPS"):
			out = append(out, regexp.QuoteMeta(name)+`=[0-9a-f.:,]+`)
		case name == "NODE_NAME":
			out = append(out, `NODE_NAME=[A-Za-z0-9_.-]*`, `--node=[A-Za-z0-9_.-]*`, `HOSTNAME=[A-Za-z0-9_.-]*`)
		case name == "CPUS" || name == "MEMORY" || name == "ORDINAL" || name == "JOB_COMPLETION_INDEX":
			out = append(out, name+`=[0-9]+`)
		case name == "POD_UID" || value == "":
		}
	}
	return strings.Join(append(out, rulestest.Nothing), "|")
}

func propagation(genuine object) string {
	out := []string{"rprivate"}
	for _, m := range list(at(genuine, "OCI", "Mounts")) {
		for _, o := range list(at(m, "options")) {
			if slices.Contains([]string{"rslave", "rshared"}, str(o)) {
				out = append(out, str(o))
			}
		}
	}
	if len(out) == 1 {
		return rulestest.Nothing
	}
	return strings.Join(out, "|")
}

func masked(got object) string {
	var out []string
	for _, p := range list(at(got, "OCI", "Linux", "MaskedPaths")) {
		out = append(out, regexp.QuoteMeta(str(p)))
	}
	return strings.Join(append(out, rulestest.Nothing), "|")
}
