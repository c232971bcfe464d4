// SPDX-License-Identifier: Apache-2.0

package adversary_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"portcullis/internal/rulestest"
	"portcullis/rules/policydata"
)

var idForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// breaksCreate: one of the manifest's containers, once at a time, in its turn, with
// nothing of it different but for what the written list lets the host choose.
func (m *model) breaksCreate(r *request) string {
	name := nameOf(r.input)
	genuine := m.create[name]
	if genuine == nil {
		return "container of no manifest"
	}
	if !m.weak {
		if !m.sandbox {
			return "container before its sandbox"
		}
		if id := str(at(r.input, "OCI", "Annotations", "io.kubernetes.cri.sandbox-id")); m.sandboxID != "" && m.sandboxID != id {
			return "container of another sandbox than was made"
		}
		for _, c := range m.containers {
			if c.name == name {
				return "two containers of one name"
			}
		}
	}
	if broken := m.breaksOrder(name); broken != "" {
		return broken
	}
	static := work(r, "create", func() string { return m.breaksFields(r, genuine) })
	if static != "" {
		return static
	}
	if identity := identityOf(r.input); m.identity != "" && identity != m.identity {
		return "another pod's identity: " + identity
	}
	if broken := m.breaksDevices(r); broken != "" {
		return broken
	}
	return m.incomplete(name, r.input)
}

// breaksOrder: in the order of the manifest, where the owner wants it.
func (m *model) breaksOrder(name string) string {
	if m.policy.Order != policydata.OrderEnforced {
		return ""
	}
	for _, step := range m.policy.Containers[name].After {
		if step.State == policydata.Succeeded && !m.succeeded[step.Container] {
			return fmt.Sprintf("%s before %s has succeeded", name, step.Container)
		}
		if step.State == policydata.Started && !m.runs(step.Container) {
			return fmt.Sprintf("%s while %s does not run", name, step.Container)
		}
	}
	for _, other := range m.policy.Containers {
		if slices.Contains(other.After, policydata.After{Container: name, State: policydata.Succeeded}) && m.succeeded[name] {
			return name + " again, which has succeeded"
		}
	}
	return ""
}

// runs is true for a container whose process was started and neither ended nor was signalled.
func (m *model) runs(name string) bool {
	for _, c := range m.containers {
		if c.name == name && c.sure && c.started && !c.ended && !c.signalled {
			return true
		}
	}
	return false
}

// identityOf is what a container says of its pod.
func identityOf(input object) string {
	var out []string
	for _, key := range []string{"id", "name", "namespace", "uid"} {
		out = append(out, str(at(input, "OCI", "Annotations", "io.kubernetes.cri.sandbox-"+key)))
	}
	return strings.Join(out, " ")
}

func (m *model) take(r *request, sure bool) {
	m.identity = identityOf(r.input)
	m.containers[r.id()] = &container{name: nameOf(r.input), input: r.input, sure: sure}
	for key, volume := range m.blocks(r) {
		device, _, _ := strings.Cut(key, " at ")
		m.volumeAt[device], m.deviceOf[volume] = volume, device
	}
}

// breaksFields: what can be said of the request alone.
func (m *model) breaksFields(r, genuine *request) string {
	input := r.input
	id := str(input["container_id"])
	if id == "" && weak(m.policy.Strict.ContainerID) {
		id = idIn(input)
	}
	if !idForm.MatchString(id) {
		return "id is not 64 hexadecimal digits: " + id
	}
	if control := str(at(input, "OCI", "Linux", "CgroupsPath")); strings.Contains(control, "..") {
		return "control group that climbs"
	}
	want := asPod(renamed(genuine.input, genuine.id(), id), input)
	if weak(m.policy.Strict.ContainerID) && str(at(input, "OCI", "Linux", "CgroupsPath")) == "" {
		want = clone(want) // where ids are free, requests that name no control group are taken too
		put(want, "", "OCI", "Linux", "CgroupsPath")
	}
	if broken := m.breaksPull(input); broken != "" {
		return broken
	}
	if broken := breaksMountOrder(input, genuine.input); broken != "" {
		return broken
	}
	dirs := emptyDirs(want)
	got, known := addressless(m.formless(input, dirs)), addressless(m.formless(want, dirs))
	for _, in := range []object{got, known} {
		m.effective(nameOf(genuine.input), at(in, "OCI", "Process"))
	}
	users := append([]any{at(want, "OCI", "Process", "User")}, m.pauseUsers(nameOf(input))...)
	if user := sortedGroups(at(got, "OCI", "Process", "User")); slices.ContainsFunc(users, func(u any) bool { return sortedGroups(u) == user }) {
		at(known, "OCI", "Process").(object)["User"] = at(got, "OCI", "Process", "User")
	}
	about := m.about(got, known)
	for _, deviation := range []struct{ key, pattern string }{{"sandbox-id", `^[0-9a-f]{64}$`}, {"sandbox-name", m.policy.Sandbox.Name}, {"sandbox-uid", podUID}} {
		value := str(at(input, "OCI", "Annotations", "io.kubernetes.cri."+deviation.key))
		if !regexp.MustCompile(deviation.pattern).MatchString(value) {
			return fmt.Sprintf("%s is %q", deviation.key, value)
		}
	}
	if namespace := str(at(input, "OCI", "Annotations", "io.kubernetes.cri.sandbox-namespace")); namespace != str(at(genuine.input, "OCI", "Annotations", "io.kubernetes.cri.sandbox-namespace")) {
		return "another namespace: " + namespace
	}
	return m.deviates(&request{kind: r.kind, input: got}, known, about)
}

const podUID = `^([0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12})?$`

// asPod is what the manifest gives for the pod that a container says it is of. That
// is the same for all containers, and compared elsewhere.
func asPod(want, of object) object {
	if at(want, "OCI", "Annotations") == nil {
		return want
	}
	for _, key := range []string{"name", "namespace", "uid", "id"} {
		key = "io.kubernetes.cri.sandbox-" + key
		from, to := str(at(want, "OCI", "Annotations", key)), str(at(of, "OCI", "Annotations", key))
		if from == to {
			continue
		}
		if from != str(want["container_id"]) {
			want = renamed(want, from, to)
		}
		if from != "" {
			at(want, "OCI", "Annotations").(object)[key] = to
		}
	}
	return want
}

// idIn is the id in the root path.
func idIn(input object) string {
	for _, part := range strings.Split(str(at(input, "OCI", "Root", "Path")), "/") {
		if idForm.MatchString(part) {
			return part
		}
	}
	return ""
}

// pauseUsers are whom the pause process may run as, whose image is the guest's own.
func (m *model) pauseUsers(name string) (out []any) {
	if name != policydata.SandboxContainer {
		return nil
	}
	for _, user := range []string{`{"AdditionalGids":[65535],"GID":65535,"UID":65535,"Username":""}`, `{"AdditionalGids":[],"GID":0,"UID":0,"Username":""}`, `{"AdditionalGids":[0],"GID":0,"UID":0,"Username":""}`} {
		out = append(out, any(parse(user)))
	}
	return out
}

func sortedGroups(user any) string {
	out := clone(object{"user": user})
	groups := list(at(out, "user", "AdditionalGids"))
	slices.SortFunc(groups, func(a, b any) int { return strings.Compare(text(a), text(b)) })
	return text(out)
}

// deviates is the first place where a request is neither as the manifest has it nor what the host may choose.
func (m *model) deviates(r *request, want object, about rulestest.About) string {
	for _, d := range rulestest.Deviations(r.input, want) {
		if !about.Free(m.chosen, r.kind, d) && !m.loose(d) {
			return d.String()
		}
	}
	return ""
}

// loose is true for what the owner's settings give up.
func (m *model) loose(d rulestest.Deviation) bool {
	s := m.policy.Strict
	free := map[string]policydata.Level{
		"OCI.Annotations": s.Annotations, "OCI.Process.Env": s.Env, "process.Env": s.ExecEnv, "OCI.Mounts[]": s.Mounts, "OCI.Linux.Sysctl": s.Sysctl,
		"OCI.Linux.MaskedPaths": s.Paths, "OCI.Linux.ReadonlyPaths": s.Paths, "storages": s.Storages, "container_id": s.ContainerID, "exec_id": s.ContainerID,
		"OCI.Linux.Devices": s.Mounts, "OCI.Hostname": s.Env,
	}
	for path, level := range free {
		if strings.HasPrefix(d.Path, path) && weak(level) {
			return true
		}
	}
	return weak(s.Image) && (strings.HasPrefix(d.Path, "storages") || d.Path == "OCI.Annotations[io.kubernetes.cri.image-name]")
}

// breaksPull: what the agent pulls is told by the container's own annotations or nothing.
func (m *model) breaksPull(input object) string {
	for _, s := range list(input["storages"]) {
		options := list(at(s, "driver_options"))
		if str(at(s, "driver")) != "image_guest_pull" || len(options) == 0 {
			continue
		}
		raw, ok := strings.CutPrefix(str(options[0]), "image_guest_pull=")
		var metadata object
		if !ok || len(options) > 1 || json.Unmarshal([]byte(raw), &metadata) != nil || !same(metadata, object{"metadata": at(input, "OCI", "Annotations")}) {
			return "pull by other annotations"
		}
	}
	return ""
}

// blockSource is the address of a block device.
var blockSource = regexp.MustCompile(`^(?:[0-9a-f]{2}(?:/[0-9a-f]{2})?|[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]|[0-9]+:[0-9]+)$`)

// block is the mount point of a block storage, and false for another storage.
func block(s any) (string, bool) {
	driver, source := str(at(s, "driver")), str(at(s, "source"))
	return str(at(s, "mount_point")), (driver == "blk" || driver == "scsi") && blockSource.MatchString(source)
}

// devicePoint is where the agent mounts a block device.
func devicePoint(source string) string {
	return "/run/kata-containers/sandbox/storage/" + base64.URLEncoding.EncodeToString([]byte(source))
}

// addressless is a CreateContainer in which the address of a block device is the same
// for all, wherever it stands, what a pull repeats is left out, and options of storages, whose order means nothing, are sorted.
func addressless(input object) object {
	out := clone(input)
	points := map[string]bool{}
	for _, s := range list(out["storages"]) {
		storage := s.(object)
		if options, ok := storage["options"].([]any); ok {
			slices.SortFunc(options, func(a, b any) int { return strings.Compare(str(a), str(b)) })
		}
		if str(storage["driver"]) == "image_guest_pull" {
			storage["driver_options"] = []any{}
		}
		point, ok := block(s)
		if !ok {
			continue
		}
		if point == devicePoint(str(storage["source"])) {
			points[point], storage["mount_point"] = true, "(device)"
		}
		storage["driver"], storage["source"] = "(block)", "(address)"
	}
	for _, mount := range list(at(out, "OCI", "Mounts")) {
		if m := mount.(object); points[str(m["source"])] {
			m["source"] = "(device)"
		}
	}
	return out
}

// blocks are the volumes by the sources of their devices, as far as mounts of the container tell which device is whose.
func (m *model) blocks(r *request) map[string]string {
	return work(r, "blocks", func() map[string]string {
		out := map[string]string{}
		genuine := m.create[nameOf(r.input)]
		if genuine == nil {
			return out
		}
		names, sources := map[string]string{}, map[string]string{}
		for _, s := range list(genuine.input["storages"]) {
			if point, ok := block(s); ok {
				names[point] = str(at(s, "source"))
			}
		}
		for _, s := range list(r.input["storages"]) {
			if point, ok := block(s); ok {
				sources[point] = str(at(s, "source"))
			}
		}
		mounts := map[string]string{}
		for _, mount := range list(at(genuine.input, "OCI", "Mounts")) {
			mounts[str(at(mount, "destination"))] = names[str(at(mount, "source"))]
		}
		for _, mount := range list(at(r.input, "OCI", "Mounts")) {
			volume, source := mounts[str(at(mount, "destination"))], sources[str(at(mount, "source"))]
			if volume != "" && source != "" {
				out[source+" at "+str(at(mount, "destination"))] = volume
			}
		}
		maps.Copy(out, m.dirs(r.input))
		return out
	})
}

// breaksDevices: one device or directory for each volume over all containers, and one volume for each device.
func (m *model) breaksDevices(r *request) string {
	volumes, devices := maps.Clone(m.volumeAt), maps.Clone(m.deviceOf)
	for key, volume := range m.blocks(r) {
		device, _, _ := strings.Cut(key, " at ")
		if was, ok := volumes[device]; ok && was != volume {
			return "device " + device + " of one volume is another's"
		}
		if was, ok := devices[volume]; ok && was != device {
			return "volume of device " + was + " is on another"
		}
		volumes[device], devices[volume] = volume, device
	}
	return ""
}

// breaksMountOrder: no mount comes after one below it, but where the manifest has it so.
func breaksMountOrder(got, genuine object) string {
	place := map[string]int{}
	for i, m := range list(at(genuine, "OCI", "Mounts")) {
		place[str(at(m, "destination"))] = i
	}
	mounts := list(at(got, "OCI", "Mounts"))
	for i, m := range mounts {
		upper := str(at(m, "destination"))
		for _, before := range mounts[:i] {
			lower := str(at(before, "destination"))
			if strings.HasPrefix(lower, upper+"/") && place[upper] <= place[lower] {
				return "mount " + upper + " over " + lower
			}
		}
	}
	return ""
}

// breaksExec: a process of the container's own probes and hooks, as the container runs.
func (m *model) breaksExec(r *request) string {
	c := m.containers[r.id()]
	if c == nil || !c.sure {
		return "process in a container that does not exist"
	}
	if !m.weak && !c.started {
		return "process in a container that does not run"
	}
	if str(r.input["exec_id"]) == r.id() {
		return "process with the name of the container's own"
	}
	genuine := m.create[c.name]
	want := clone(object{"process": at(asPod(clone(genuine.input), c.input), "OCI", "Process")})
	process := want["process"].(object)
	process["Args"], process["Capabilities"], process["Terminal"] = at(r.input, "process", "Args"), nil, false
	args := text(process["Args"])
	mine := slices.ContainsFunc(m.execs[c.name], func(e *request) bool { return text(at(e.input, "process", "Args")) == args })
	listed := slices.ContainsFunc(m.policy.Requests.Exec.Commands, func(c []string) bool { return text(c) == args })
	if !mine && !listed {
		return "process that is none of the container's: " + args
	}
	if listed && m.policy.Requests.Exec.Terminal {
		process["Terminal"] = at(r.input, "process", "Terminal")
	}
	users := slices.Concat([]any{at(genuine.input, "OCI", "Process", "User")}, m.pauseUsers(c.name))
	if user := sortedGroups(at(r.input, "process", "User")); slices.ContainsFunc(users, func(u any) bool { return sortedGroups(u) == user }) {
		process["User"] = at(r.input, "process", "User")
	}
	want["container_id"], want["exec_id"] = r.input["container_id"], "(of the host)"
	want["string_user"], want["stdin_port"], want["stdout_port"], want["stderr_port"] = nil, json.Number("0"), json.Number("0"), json.Number("0")
	about := m.about(c.input, genuine.input)
	where := about.Where
	about.Where = func(name string, d rulestest.Deviation) bool {
		if name == "open stream" && d.Path == "stdin_port" {
			return m.policy.Requests.Exec.Stdin
		}
		if name == "terminal" {
			return process["Terminal"] == true
		}
		return where(name, d)
	}
	got := clone(r.input)
	for _, in := range []object{got, want} {
		m.effective(c.name, in["process"])
	}
	return m.deviates(&request{kind: r.kind, input: got}, want, about)
}

// breaksEphemeral: memory-backed volumes of the pod are sized anew, and nothing else.
func (m *model) breaksEphemeral(input object) string {
	if !m.policy.Requests.UpdateEphemeralMounts {
		return "sizes of volumes, which the owner did not open"
	}
	for _, s := range list(input["storages"]) {
		point := str(at(s, "mount_point"))
		known := slices.ContainsFunc(m.memory(), func(p string) bool { return p == point })
		for _, o := range list(at(s, "options")) {
			if !regexp.MustCompile(`^(remount|size=[0-9]+)$`).MatchString(str(o)) {
				return "option of a volume in memory: " + str(o)
			}
		}
		source := slices.Contains([]string{"tmpfs", "shm"}, str(at(s, "source")))
		if !known || !source || str(at(s, "driver")) != "ephemeral" || str(at(s, "fstype")) != "tmpfs" || len(list(at(s, "driver_options"))) > 0 {
			return "other than a volume in memory: " + text(s)
		}
	}
	return ""
}

// memory are the mount points of the pod's volumes in memory.
func (m *model) memory() []string {
	out := []string{"/run/kata-containers/sandbox/shm"}
	for _, r := range m.create {
		for _, s := range list(r.input["storages"]) {
			if str(at(s, "driver")) == "ephemeral" {
				out = append(out, str(at(s, "mount_point")))
			}
		}
	}
	return out
}
