// SPDX-License-Identifier: Apache-2.0

package adversary_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"portcullis/internal/rulestest"
	"portcullis/rules/policydata"
)

// object is a JSON object.
type object = map[string]any

// model is what a pod is, by the guarantees of docs/requests.md: it knows the
// manifest by the genuine requests of its pod, and nothing of the rules.
type model struct {
	genuine map[string]object                      // CreateContainer by container name, without ids
	execs   map[string][]string                    // argument lists by container name, as JSON
	mounts  map[string]map[string]policydata.Mount // by container name and destination
	users   map[string][]string                    // users by container name, as JSON: the genuine one, and others that the owner's policy names
	sandbox bool                                   // it was made
	live    map[string]string                      // container name by id, of those created and not removed
	taken   map[string]bool                        // ids that were ever taken
	copied  map[string]copied                      // by path
	sources map[string]map[string]string           // where the mounts of a live container lie: by id and destination
}

var (
	idForm     = regexp.MustCompile(`^[0-9a-f]{64}$`)
	randomPart = regexp.MustCompile(`ID-[a-z0-9]{16}-`)
)

// newModel learns the pod from its genuine requests.
func newModel(p *policydata.Policy, requests []rulestest.Request) *model {
	m := &model{genuine: map[string]object{}, execs: map[string][]string{}, mounts: map[string]map[string]policydata.Mount{}, users: map[string][]string{}}
	for name, c := range p.Containers {
		m.mounts[name] = c.Mounts
	}
	for name, c := range parse(text(p))["containers"].(object) {
		for _, user := range list(at(c, "other_users")) {
			m.users[name] = append(m.users[name], withSortedGroups(user))
		}
	}
	names := map[string]string{}
	for _, r := range requests {
		id, _ := r.Input["container_id"].(string)
		switch r.Kind {
		case "CreateContainerRequest":
			names[id] = nameOf(r.Input)
			m.genuine[names[id]] = withoutID(r.Input)
			m.users[names[id]] = append(m.users[names[id]], withSortedGroups(at(r.Input, "OCI", "Process", "User")))
		case "ExecProcessRequest":
			m.execs[names[id]] = append(m.execs[names[id]], text(at(r.Input, "process", "Args")))
		}
	}
	return m
}

// fresh is the model of a pod of which nothing has happened.
func (m *model) fresh() *model {
	out := *m
	out.live, out.taken, out.sandbox = map[string]string{}, map[string]bool{}, false
	out.copied, out.sources = map[string]copied{}, map[string]map[string]string{}
	return &out
}

// allowed takes in a request that the rules allowed, and returns the guarantee
// that it breaks, or nothing.
func (m *model) allowed(r rulestest.Request) string {
	id, _ := r.Input["container_id"].(string)
	switch r.Kind {
	case "CreateSandboxRequest":
		if m.sandbox {
			return "sandbox made twice"
		}
		m.sandbox = true
	case "CreateContainerRequest":
		return m.create(id, r.Input)
	case "StartContainerRequest", "SignalProcessRequest", "WaitProcessRequest", "RemoveContainerRequest", "ExecProcessRequest":
		name, ok := m.live[id]
		if !ok {
			return r.Kind + " of a container that does not exist"
		}
		if r.Kind == "ExecProcessRequest" && !slices.Contains(m.execs[name], text(at(r.Input, "process", "Args"))) {
			return "process that is none of the container's"
		}
		if r.Kind == "RemoveContainerRequest" {
			delete(m.live, id)
		}
	case "CopyFileRequest":
		return m.copyFile(r.Input)
	}
	return ""
}

func (m *model) create(id string, input object) string {
	name := nameOf(input)
	genuine, known := m.genuine[name]
	switch {
	case !idForm.MatchString(id):
		return "id is not 64 hexadecimal digits"
	case slices.Contains(slices.Collect(maps.Values(m.live)), name):
		return "two containers of one name"
	case !known:
		return "container of no manifest"
	}
	again := m.taken[id]
	m.taken[id], m.live[id] = true, name
	got := withoutID(input)
	for _, path := range []string{"OCI.Process.Args", "OCI.Process.Cwd", "OCI.Root", "OCI.Annotations.image-name"} {
		if text(field(got, path)) != text(field(genuine, path)) {
			return path + " is another's"
		}
	}
	if user := withSortedGroups(field(got, "OCI.Process.User")); !slices.Contains(m.users[name], user) {
		return "OCI.Process.User is another's"
	}
	for _, path := range []string{"OCI.Process.Env", "OCI.Mounts", "OCI.Linux.Namespaces", "storages"} {
		if extra := beyond(field(got, path), field(genuine, path)); extra != "" {
			return fmt.Sprintf("%s: not the container's own: %.200s", path, extra)
		}
	}
	if broken := m.devices(got, genuine); broken != "" {
		return broken
	}
	if broken := m.contents(id, name, sourcesOf(input)); broken != "" {
		return broken
	}
	if again {
		return "id taken twice"
	}
	return ""
}

// devices are those of the container, by their places in it.
func (m *model) devices(got, genuine object) string {
	places := func(input object) (out []any) {
		for _, d := range list(input["devices"]) {
			out = append(out, at(d, "container_path"))
		}
		return out
	}
	if beyond(places(got), places(genuine)) != "" {
		return "devices: not the container's own"
	}
	return ""
}

// withoutID is a CreateContainer without what the host chooses: the ids and the
// random part of a file's name; the pull's repeated annotations are left out.
func withoutID(input object) object {
	id, _ := input["container_id"].(string)
	out := clone(input)
	for _, s := range list(out["storages"]) {
		if at(s, "driver") == "image_guest_pull" {
			s.(object)["driver_options"] = nil
		} else { // the address of a block device is the host's
			s.(object)["source"], s.(object)["driver"] = nil, nil
		}
	}
	raw := text(out)
	if id != "" {
		raw = strings.ReplaceAll(raw, id, "ID")
	}
	raw = randomPart.ReplaceAllString(raw, "ID-RANDOM-")
	return parse(raw)
}

// withSortedGroups is a user as JSON; the order of its groups means nothing.
func withSortedGroups(user any) string {
	out := clone(object{"user": user})
	groups := list(at(out, "user", "AdditionalGids"))
	slices.SortFunc(groups, func(a, b any) int { return strings.Compare(text(a), text(b)) })
	return text(out)
}

func nameOf(input object) string {
	name, ok := at(input, "OCI", "Annotations", "io.kubernetes.cri.container-name").(string)
	if !ok {
		return policydata.SandboxContainer
	}
	return name
}

func field(input object, path string) any {
	steps := strings.Split(path, ".")
	if steps[len(steps)-1] == "image-name" {
		steps[len(steps)-1] = "io.kubernetes.cri.image-name"
		if nameOf(input) == policydata.SandboxContainer {
			return nil
		}
	}
	return at(input, steps...)
}

// beyond is the first item of a list that another does not have.
func beyond(got, all any) string {
	known := map[string]bool{}
	for _, item := range list(all) {
		known[text(item)] = true
	}
	for _, item := range list(got) {
		if !known[text(item)] {
			return text(item)
		}
	}
	return ""
}

func at(v any, steps ...string) any {
	for _, step := range steps {
		o, _ := v.(object)
		v = o[step]
	}
	return v
}

func list(v any) []any { l, _ := v.([]any); return l }

func text(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // it is JSON
	}
	return string(raw)
}

func parse(raw string) object {
	var out object
	if err := json.Unmarshal([]byte(raw), &out); err != nil {
		panic(err) // it was JSON
	}
	return out
}

func clone(o object) object { return parse(text(o)) }
