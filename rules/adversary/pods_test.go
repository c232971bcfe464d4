// SPDX-License-Identifier: Apache-2.0

package adversary_test

import (
	"cmp"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"portcullis/engine"
	"portcullis/internal/emulator/controller"
	"portcullis/internal/emulator/emulatortest"
	"portcullis/internal/emulator/shim"
	"portcullis/internal/generatetest"
	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/policydata"
)

// event is a request or an answer at its place in a sequence, and what the agent does.
type event struct {
	*request
	outcome outcome
}

// pod is a manifest's pod on a platform.
type pod struct {
	name     string
	number   int // among all that there are
	policy   *policydata.Policy
	life     []event   // of the genuine pod
	scenes   [][]event // parts of it that stand by themselves
	requests requests
	facts    *facts
}

// plan says which pods there are.
type plan struct {
	manifest  string
	platforms []string
	dropIns   []string
	emptyDirs shim.EmptyDirs // where they are not as the platform's
}

var (
	everywhere = []string{"guest-pull", "peer-pods", "host-pull", "non-coco", "tardev"}
	plans      = []plan{
		{"files", []string{"guest-pull", "peer-pods"}, nil, ""},
		{"volumes", everywhere, nil, ""},
		{"volumes", []string{"peer-pods"}, nil, shim.CopiedDirs},
		{"order", everywhere, []string{"ordered"}, ""},
		{"order", []string{"guest-pull"}, nil, ""},
		{"../../testdata/pods/shop", []string{"peer-pods", "non-coco"}, nil, ""},
		{"../../testdata/pods/shop", []string{"tardev"}, []string{"ordered"}, ""},
		{"../../testdata/pods/nightly", []string{"guest-pull", "peer-pods"}, []string{"azure"}, ""},
		{"../../testdata/pods/ledger", []string{"guest-pull", "host-pull"}, nil, ""},
		{"../../testdata/pods/trainer", []string{"guest-pull"}, []string{"exec"}, ""},
		{"../../testdata/pods/agent", []string{"guest-pull", "non-coco"}, []string{"logs"}, ""},
		{"volumes", []string{"guest-pull"}, []string{"compat-kata"}, ""},
		{"order", []string{"guest-pull"}, []string{"ordered", "exec"}, ""},
	}
)

// pods makes the pods of the plans whose names the pattern matches.
func pods(t testing.TB, pattern string) (out []*pod) {
	t.Helper()
	number := 0
	for _, p := range plans {
		for _, platform := range p.platforms {
			name := strings.Join(append([]string{p.manifest[strings.LastIndex(p.manifest, "/")+1:], platform}, p.dropIns...), "/")
			if p.emptyDirs != "" {
				name += "/" + string(p.emptyDirs)
			}
			if number++; regexp.MustCompile(pattern).MatchString(name) {
				out = append(out, newPod(t, name, platform, p))
				out[len(out)-1].number = number
			}
		}
	}
	if len(out) == 0 {
		t.Fatalf("no pod %q", pattern)
	}
	return out
}

const imagesFile = "../generate/testdata/images.json"

func newPod(t testing.TB, name, platform string, from plan) *pod {
	t.Helper()
	file := "testdata/" + from.manifest + ".yaml"
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	policies, _, err := generatetest.Policies(generatetest.Manifest(t, file), generatetest.Settings(t, platform, from.dropIns...), generatetest.Images(t, imagesFile))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	p := &pod{name: name, policy: policies[0], requests: requests{}}
	var life []rulestest.Request
	if emulatortest.Emulates(platform) {
		options := emulatortest.Options(t, platform, generatetest.Store(t, imagesFile))
		options.Shim.EmptyDirs = cmp.Or(from.emptyDirs, options.Shim.EmptyDirs)
		life = emulatortest.Pods(t, raw, options)[0].Requests
	}
	if life == nil || p.denies(t, life) {
		t.Logf("%s: requests that follow the policy", name)
		life = p.byPolicy()
	}
	m, err := controller.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	p.live(life)
	images := generatetest.Images(t, imagesFile)
	p.facts = newFacts(p, m, emulatortest.Options(t, "guest-pull", nil).Node, func(reference string) []string {
		image, err := images.Image(t.Context(), reference)
		if err != nil {
			t.Fatal(err)
		}
		return image.Config.Volumes
	})
	return p
}

// byPolicy are requests that follow the policy; containers that others wait for succeed.
func (p *pod) byPolicy() (life []rulestest.Request) {
	for _, r := range (rulestest.Emulator{Policy: p.policy, Pod: rulestest.DefaultPod(p.policy)}).All() {
		life = append(life, r)
		for name, c := range p.policy.Containers {
			for _, after := range c.After {
				if id := rulestest.ID(after.Container); r.Kind == "StartContainerRequest" && r.Input["container_id"] == id && after.State == policydata.Succeeded && name != "" {
					life = append(life, rulestest.Request{Kind: "WaitProcessRequest", Input: object{"container_id": id, "exec_id": id}})
				}
			}
		}
	}
	return life
}

// denies is true where the policy denies the genuine pod, which is another test's to
// find; the adversary would try what never gets far.
func (p *pod) denies(t testing.TB, life []rulestest.Request) bool {
	t.Helper()
	trial := &pod{name: p.name, policy: p.policy, requests: requests{}}
	trial.live(life)
	g := trial.gate(t, compiler(t, rules.Text()), rules.Text(), false)
	defer g.close()
	_, denied, err := trial.denied(g, trial.life)
	if err != nil {
		t.Fatal(err)
	}
	return denied != nil
}

// denied is the first of the events that a pod needs and the rules deny.
func (p *pod) denied(g *gate, events []event) (int, *event, error) {
	b, err := g.boot()
	if err != nil {
		return 0, nil, err
	}
	for i, e := range events {
		allowed, err := b.ask(e.request, done)
		if err != nil {
			return i, nil, err
		}
		if !allowed && !emulatortest.Optional(rulestest.Request{Kind: e.kind, Input: e.input}) {
			return i, &e, nil
		}
	}
	return 0, nil, nil
}

// gate loads the pod's policy with a text of the rules, by a compiler that holds it for the compact form.
func (p *pod) gate(t testing.TB, c *engine.Compiler, text string, full bool) *gate {
	t.Helper()
	policy, err := p.policy.Compact(text)
	if full {
		policy, err = p.policy.Full(text)
		policy = append(policy, "\n# compiled as it stands, as other engines do, not taken apart\nwhole := true\n"...)
	}
	if err != nil {
		t.Fatal(err)
	}
	g, err := newGate(c, policy)
	if err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	return g
}

// live makes events of the genuine requests, puts in the answers of the agent, and cuts them into scenes.
func (p *pod) live(life []rulestest.Request) {
	ended := map[string]bool{}
	for _, r := range life {
		if r.Kind == answered {
			continue
		}
		e := event{request: p.requests.of(r.Kind, r.Input)}
		p.life = append(p.life, e)
		if id := e.id(); e.kind == "WaitProcessRequest" && own(e.input) && !ended[id] && p.container(id) != policydata.SandboxContainer {
			ended[id] = true
			p.life = append(p.life, event{request: p.answer(id, 0)})
		}
	}
	p.cut()
}

// answer is what the policy is told when a container's process has ended.
func (p *pod) answer(id string, status int) *request {
	return p.requests.of(answered, object{"request": object{"container_id": id, "exec_id": ""}, "response": object{"status": status}})
}

// container is the name of the genuine container of an id.
func (p *pod) container(id string) string {
	for _, e := range p.life {
		if e.kind == "CreateContainerRequest" && e.id() == id {
			return nameOf(e.input)
		}
	}
	return ""
}

// nameOf is the name of the container that a CreateContainer is for.
func nameOf(input object) string {
	name, ok := at(input, "OCI", "Annotations", "io.kubernetes.cri.container-name").(string)
	if !ok {
		return policydata.SandboxContainer
	}
	return name
}

// owner is the id of the container that a request is about, "" for the pod.
func (r *request) owner() string {
	switch r.kind {
	case "CopyFileRequest":
		if m := sharedPath.FindStringSubmatch(str(r.input["path"])); m != nil {
			return m[1]
		}
	case answered:
		return str(at(r.input, "request", "container_id"))
	}
	return r.id()
}

var sharedPath = regexp.MustCompile(`(?s)^/run/kata-containers/shared/containers/([0-9a-f]{64}|sandbox)-([a-z0-9]{16})-([^/]+)(?:/(.*))?$`)

// longest is how many events a sequence has at most.
const longest = 60

// cut finds the scenes: the pod with one container, with two, and with all, without what only reads.
func (p *pod) cut() {
	var ids []string
	for _, e := range p.life {
		if e.kind == "CreateContainerRequest" && nameOf(e.input) != policydata.SandboxContainer {
			ids = append(ids, e.id())
		}
	}
	sets := [][]string{ids}
	if p.policy.Order != policydata.OrderEnforced {
		for i, id := range ids {
			sets = append(sets, []string{id})
			if len(ids) > 2 && i > 0 {
				sets = append(sets, ids[i-1:i+1])
			}
		}
	}
	for _, set := range sets {
		var scene []event
		for _, e := range p.life {
			owner := e.owner()
			if slices.Contains(ids, owner) && !slices.Contains(set, owner) || slices.Contains(quiet, e.kind) {
				continue
			}
			scene = append(scene, e)
		}
		p.scenes = append(p.scenes, scene[:min(len(scene), longest-8)])
	}
}

// quiet are requests that a scene goes without.
var quiet = []string{"ReadStreamRequest", "GetOOMEventRequest", "GuestDetailsRequest", "RemoveStaleVirtiofsShareMountsRequest", "DestroySandboxRequest"}
