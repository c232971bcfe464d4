// SPDX-License-Identifier: Apache-2.0

package generate_test

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"portcullis/agentproto"
	"portcullis/internal/generatetest"
	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/generate/kata"
	"portcullis/rules/policydata"
	"portcullis/rules/settings"
)

// Policies made from the corpus' manifests decide its requests as it says, in this project's shape and in upstream's.
func TestRequestsOfTheCorpusAreDecidedAsItSays(t *testing.T) {
	count := 0
	generatetest.EachPod(t, func(name, path, images string) {
		s := generatetest.Settings(t, settings.DefaultPlatform, "compat-kata")
		made, _, err := generatetest.Policies(generatetest.Manifest(t, path), s, generatetest.Images(t, images))
		if err != nil {
			t.Fatal(err)
		}
		for shape, judge := range judges(t, made[0], s) {
			t.Run(name+"/"+shape, func(t *testing.T) {
				count += replay(t, judge, filepath.Join(filepath.Dir(path), "testcases.json"))
			})
		}
	})
	if count == 0 {
		t.Error("no request was found")
	}
	t.Logf("%d decisions", count)
}

// With the strict defaults the same requests, completed to what a real runtime
// sends, get the same decisions. An instance is removed before the next is made.
func TestWholeRequestsOfTheCorpusAreDecidedTheSameByStrictPolicies(t *testing.T) {
	count := 0
	generatetest.EachPod(t, func(name, path, images string) {
		s := generatetest.Settings(t, settings.DefaultPlatform)
		made, _, err := generatetest.Policies(generatetest.Manifest(t, path), s, generatetest.Images(t, images))
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			data, err := made[0].JSON()
			if err != nil {
				t.Fatal(err)
			}
			judge, err := rulestest.New(rules.Text(), data)
			if err != nil {
				t.Fatal(err)
			}
			count += replayWhole(t, made[0], judge, filepath.Join(filepath.Dir(path), "testcases.json"))
		})
	})
	if count == 0 {
		t.Error("no request was found")
	}
}

func replayWhole(t *testing.T, p *policydata.Policy, judge *rulestest.Judge, file string) int {
	t.Helper()
	e := rulestest.Emulator{Policy: p, Pod: rulestest.DefaultPod(p)}
	cases := withGenuineID(t, readCases(t, file), "gid")
	if cases[0].Kind != "CreateSandboxRequest" {
		if err := judge.SetState(context.Background(), map[string]any{"sandbox": ""}); err != nil {
			t.Fatal(err)
		}
	}
	running := map[any]string{} // container id -> name
	for _, c := range cases {
		r := e.Complete(rulestest.Request{Kind: c.Kind, Input: complete(t, c.Kind, c.Request)})
		id := r.Input["container_id"]
		switch c.Kind {
		case "CreateContainerRequest":
			annotations := r.Input["OCI"].(map[string]any)["Annotations"].(map[string]any)
			name, _ := annotations["io.kubernetes.cri.container-name"].(string)
			for earlier, other := range running {
				if other == name {
					ask(t, judge, rulestest.Request{Kind: "RemoveContainerRequest", Input: complete(t, "RemoveContainerRequest", map[string]any{"container_id": earlier})})
					delete(running, earlier)
				}
			}
			if c.Allowed {
				running[id] = name
			}
		case "ExecProcessRequest":
			r = e.CompleteExec(running[id], r)
		case "RemoveContainerRequest":
			delete(running, id)
		}
		want := c.Allowed && !ofNoVolume(p, r)
		if allowed := ask(t, judge, r); allowed != want {
			t.Errorf("%s: allowed is %v, want %v", c.Description, allowed, want)
		}
		if c.Kind == "CreateContainerRequest" {
			ask(t, judge, rulestest.Request{Kind: "StartContainerRequest", Input: complete(t, "StartContainerRequest", map[string]any{"container_id": id})})
		}
	}
	return len(cases)
}

// copiedFile is a path that files are copied to, with the name of the volume.
var copiedFile = regexp.MustCompile(`^/run/kata-containers/shared/containers/[0-9a-f]{64}-[a-z0-9]{16}-([^/]+)`)

// ofNoVolume is true for a file that is copied to where no mount of the policy is, which a strict policy denies and upstream's rules
// do not look at.
func ofNoVolume(p *policydata.Policy, r rulestest.Request) bool {
	path, _ := r.Input["path"].(string)
	match := copiedFile.FindStringSubmatch(path)
	if r.Kind != "CopyFileRequest" || match == nil {
		return false
	}
	for _, c := range p.Containers {
		for _, m := range c.Mounts {
			if m.From == policydata.MountShared && m.Source == match[1] {
				return false
			}
		}
	}
	return true
}

// withGenuineID gives a container that the corpus identifies by its name an id as runtimes make them.
func withGenuineID(t *testing.T, cases []recorded, name string) []recorded {
	t.Helper()
	id := rulestest.ID(name)
	places := strings.NewReplacer("/"+name+"/", "/"+id+"/", "/"+name+"-", "/"+id+"-", "/"+name+`"`, "/"+id+`"`, "/"+name+`\"`, "/"+id+`\"`, ":"+name+`"`, ":"+id+`"`,
		`_id":"`+name+`"`, `_id":"`+id+`"`)
	for i, c := range cases {
		text, err := json.Marshal(c.Request)
		if err != nil {
			t.Fatal(err)
		}
		cases[i].Request = nil
		if err := json.Unmarshal([]byte(places.Replace(string(text))), &cases[i].Request); err != nil {
			t.Fatal(err)
		}
	}
	return cases
}

func ask(t *testing.T, judge *rulestest.Judge, r rulestest.Request) bool {
	t.Helper()
	d, err := judge.Ask(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	return d.Allowed
}

// judges holds a policy in every form.
func judges(t *testing.T, p *policydata.Policy, s *settings.Settings) map[string]*rulestest.Judge {
	t.Helper()
	data, err := p.JSON()
	if err != nil {
		t.Fatal(err)
	}
	full, err := p.Full(rules.Text())
	if err != nil {
		t.Fatal(err)
	}
	upstream, err := kata.Text(rules.UpstreamText(), p, s)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*rulestest.Judge{}
	for name, form := range map[string]struct {
		text string
		data []byte
	}{"compact": {rules.Text(), data}, "full": {string(full), nil}, "upstream": {string(upstream), nil}} {
		if all[name], err = rulestest.New(form.text, form.data); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return all
}

// recorded is one request of the corpus and what it must get.
type recorded struct {
	Description, Kind string
	Allowed           bool
	Request           map[string]any
}

func readCases(t *testing.T, file string) []recorded {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var cases []recorded
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	return cases
}

// replay asks for every request of a file, in order.
func replay(t *testing.T, judge *rulestest.Judge, file string) int {
	t.Helper()
	cases := readCases(t, file)
	for _, c := range cases {
		d, err := judge.Ask(context.Background(), rulestest.Request{Kind: c.Kind, Input: complete(t, c.Kind, c.Request)})
		if err != nil || d.Allowed != c.Allowed {
			t.Errorf("%s: allowed is %v (%v), want %v", c.Description, d.Allowed, err, c.Allowed)
		}
	}
	return len(cases)
}

// complete gives a request the fields that it leaves out, as the agent's decoder
// does. What the policy sees of CopyFile is not the message.
func complete(t *testing.T, kind string, given map[string]any) map[string]any {
	t.Helper()
	if kind == "CopyFileRequest" {
		out := map[string]any{"symlink_target": nil, "file_size": 0, "file_mode": 0, "dir_mode": 0, "uid": 0, "gid": 0, "offset": 0}
		maps.Copy(out, given)
		return out
	}
	found, ok := agentproto.MessageByName(kind)
	if !ok {
		t.Fatalf("the agent's API has no %s", kind)
	}
	return fillMessage(found.Descriptor(), given)
}

func fillMessage(m protoreflect.MessageDescriptor, given map[string]any) map[string]any {
	out := map[string]any{}
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		name := string(f.Name())
		if name == "type" {
			name = "type_"
		}
		out[name] = fillField(f, given[name])
	}
	return out
}

func fillField(f protoreflect.FieldDescriptor, given any) any {
	switch {
	case f.IsMap():
		if given == nil {
			return map[string]any{}
		}
		return given
	case f.IsList():
		out := []any{}
		items, _ := given.([]any)
		for _, item := range items {
			if object, ok := item.(map[string]any); ok && f.Message() != nil {
				item = fillMessage(f.Message(), object)
			}
			out = append(out, item)
		}
		return out
	case f.Message() != nil:
		object, ok := given.(map[string]any)
		if !ok {
			return nil
		}
		return fillMessage(f.Message(), object)
	case given != nil:
		return given
	case f.Kind() == protoreflect.StringKind:
		return ""
	case f.Kind() == protoreflect.BoolKind:
		return false
	}
	return 0
}

// Requests that a runtime sends for a pod are allowed by rules that read
// upstream's shape, and the same with another argument is denied.
func TestUpstreamsShapeAllowsThePodsThatItCanSay(t *testing.T) {
	images := generatetest.Images(t, "testdata/images.json")
	s := generatetest.Settings(t, settings.DefaultPlatform, "compat-kata")
	for _, name := range []string{"web-deployment", "web-pinned", "volumes", "security", "mesh-sidecar", "env-from", "job", "gpu", "csi", "many-probes"} {
		t.Run(name, func(t *testing.T) {
			made, _, err := generatetest.Policies(generatetest.Manifest(t, "testdata/pods/"+name+".yaml"), s, images)
			if err != nil {
				t.Fatal(err)
			}
			judge := judges(t, made[0], s)["upstream"]
			e := rulestest.Emulator{Policy: made[0], Pod: rulestest.DefaultPod(made[0])}
			for _, r := range e.All() {
				d, err := judge.Ask(context.Background(), r)
				if err != nil || !d.Allowed {
					t.Errorf("%s of %v is denied (%v)", r.Kind, r.Input["container_id"], err)
				}
			}
			for container, c := range made[0].Containers {
				if c.Type == policydata.TypeSandbox {
					continue
				}
				r := e.CreateContainer(container)
				process := r.Input["OCI"].(map[string]any)["Process"].(map[string]any)
				process["Args"] = append(process["Args"].([]any), "--more")
				if d, err := judge.Ask(context.Background(), r); err != nil || d.Allowed {
					t.Errorf("%s with another argument is allowed (%v)", container, err)
				}
			}
		})
	}
}

func TestWhatUpstreamsShapeCannotSayIsAnError(t *testing.T) {
	images := generatetest.Images(t, "testdata/images.json")
	s := generatetest.Settings(t, settings.DefaultPlatform)
	made, _, err := generatetest.Policies(generatetest.Manifest(t, "testdata/pods/downward.yaml"), s, images)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kata.Data(made[0], s); err == nil || !strings.Contains(err.Error(), "cannot be expressed") {
		t.Errorf("error is %v", err)
	}
}
