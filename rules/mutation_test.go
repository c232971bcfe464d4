// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"portcullis/internal/emulator/emulatortest"
	"portcullis/internal/generatetest"
	"portcullis/internal/rulestest"
	"portcullis/internal/shareddata"
	"portcullis/rules"
	"portcullis/rules/policydata"
)

// strictPods are manifests that together use everything a manifest can say, and the platforms for which their policies are made.
var strictPods = []strictPod{
	{manifest: "shop", platform: "guest-pull"},
	{manifest: "ledger", platform: "guest-pull"},
	{manifest: "trainer", platform: "guest-pull"},
	{manifest: "nightly", platform: "guest-pull"},
	{manifest: "agent", platform: "guest-pull", node: agentNode},
	{manifest: "shop", platform: "tardev"},
	{manifest: "ledger", platform: "host-pull"},
	{manifest: "nightly", platform: "peer-pods"},
	{manifest: "agent", platform: "non-coco", node: agentNode},
}

type strictPod struct {
	manifest, platform string
	node               []string // how values begin that hold the node's name, which nobody but the host knows
}

// strictKinds are the requests whose changes are tried.
var strictKinds = []string{"CreateSandboxRequest", "CreateContainerRequest", "StartContainerRequest", "ExecProcessRequest"}

// life are the requests of the pod, genuine ones if its platform is emulated.
func (s strictPod) life(t *testing.T, p *policydata.Policy) []rulestest.Request {
	t.Helper()
	if !emulatortest.Emulates(s.platform) {
		return emulator(p).All()
	}
	text, err := os.ReadFile("testdata/pods/" + s.manifest + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	pods := emulatortest.Pods(t, text, emulatortest.Options(t, s.platform, generatetest.Store(t, "generate/testdata/images.json")))
	if denied := emulatortest.Denied(t, judgeCompact(t, p), pods[0].Requests); denied != nil {
		t.Fatalf("%s is denied: %s", denied.Kind, why(t, judgeCompact(t, p), *denied))
	}
	return pods[0].Requests
}

// agentNode is where the node agent asks for the name of its node; in the node's network it is the host name as well.
var agentNode = []string{"--node=", "HOSTNAME=", "NODE_NAME="}

// Every change of a single leaf of an allowed request is judged in the state in which the request itself was allowed. What is
// still allowed must be on the written list of fields that the host may choose, inside of the field's domain where a value was
// changed, and be at most 2 % of those. docs/strictness.md has the result.
func TestSingleLeafChangesAreDenied(t *testing.T) {
	tallies := make([]*mutationTally, len(strictPods))
	t.Run("pods", func(t *testing.T) {
		images := generatetest.Images(t, "generate/testdata/images.json")
		for i, pod := range strictPods {
			made, _, err := generatetest.Policies(generatetest.Manifest(t, "testdata/pods/"+pod.manifest+".yaml"), generatetest.Settings(t, pod.platform), images)
			if err != nil || len(made) != 1 {
				t.Fatalf("%s: %d policies (%v)", pod.manifest, len(made), err)
			}
			tallies[i] = newTally()
			t.Run(pod.manifest+"/"+pod.platform, func(t *testing.T) {
				t.Parallel()
				tallies[i].add(t, pod, made[0])
			})
		}
	})
	all := newTally()
	for _, tally := range tallies {
		all.merge(tally)
	}
	tried, allowed := all.sum(func(c count) int { return c.tried }), all.sum(func(c count) int { return c.allowed })
	values, others := all.split(strictKinds)
	t.Logf("%d values were changed, %d allowed (%.2f %%); %d things came or went, %d allowed (%.2f %%)",
		values.tried, values.allowed, values.percent(), others.tried, others.allowed, others.percent())
	if tried < 5000 {
		t.Fatalf("only %d changes were made", tried)
	}
	if values.percent() > mostValues || others.percent() > mostOthers {
		t.Errorf("%.2f %% of values and %.2f %% of others are allowed, want at most %v and %v", values.percent(), others.percent(), mostValues, mostOthers)
	}
	if n := len(rules.HostChosenFields()); n > 28 {
		t.Errorf("the written list has %d entries, want at most 28", n)
	}
	checkFieldsCovered(t, all.paths)
	checkDocument(t, "strictness.md", all.document(t, tried, allowed))
}

// mostValues and mostOthers are how much of the changes may be allowed, percent: of those that change a value, and of those by
// which something comes or goes.
const (
	mostValues = 2
	mostOthers = 3
)

// protected are the fields whose strings nothing may be added to or taken from.
var protected = []string{
	"OCI.Process.Args", "OCI.Process.Env", "OCI.Process.User", "OCI.Mounts[].source", "OCI.Mounts[].destination", "OCI.Root.Path",
	"OCI.Annotations[io.kubernetes.cri.image-name]", "storages[].source", "storages[].mount_point", "process.Args", "process.Env", "process.User",
}

// field is a field of a request, by message and path.
type field struct{ kind, path string }

// count says how often a change was made, and how often it was allowed.
type count struct{ tried, allowed int }

func (c count) percent() float64 { return 100 * float64(c.allowed) / float64(max(c.tried, 1)) }

type mutationTally struct {
	counts map[field]map[rulestest.Change]count
	held   map[field]map[string]bool // rules that denied a change
	paths  map[string]bool           // request and path of every change
}

func newTally() *mutationTally {
	return &mutationTally{map[field]map[rulestest.Change]count{}, map[field]map[string]bool{}, map[string]bool{}}
}

func (m *mutationTally) count(at field, change rulestest.Change, c count) {
	if m.counts[at] == nil {
		m.counts[at] = map[rulestest.Change]count{}
	}
	had := m.counts[at][change]
	m.counts[at][change] = count{had.tried + c.tried, had.allowed + c.allowed}
	m.paths[at.kind+" "+at.path] = true
}

func (m *mutationTally) merge(other *mutationTally) {
	for at, changes := range other.counts {
		for change, c := range changes {
			m.count(at, change, c)
		}
	}
	for at, rules := range other.held {
		if m.held[at] == nil {
			m.held[at] = map[string]bool{}
		}
		maps.Copy(m.held[at], rules)
	}
}

func (m *mutationTally) sum(of func(count) int) (n int) {
	for _, changes := range m.counts {
		for _, c := range changes {
			n += of(c)
		}
	}
	return n
}

// add tries every change of every request of a pod's start.
func (m *mutationTally) add(t *testing.T, pod strictPod, p *policydata.Policy) {
	ctx := context.Background()
	j := judgeCompact(t, p)
	for _, r := range pod.life(t, p) {
		if emulatortest.Optional(r) {
			continue
		}
		for mutation := range mutations(r, strictKinds) {
			d, err := j.Decide(ctx, r.Kind, value(t, mutation.Request))
			if err != nil {
				t.Fatalf("%s %s: %v", mutation.Change, mutation.Where, err)
			}
			c := count{tried: 1}
			if d.Allowed {
				c.allowed = 1
				pod.checkAllowed(t, r, mutation)
			}
			at := field{r.Kind, mutation.Path}
			if !d.Allowed && m.held[at] == nil {
				m.held[at] = deniedBy(t, j, mutation.Request)
			}
			m.count(at, mutation.Change, c)
		}
		if d, err := j.Ask(ctx, r); err != nil || !d.Allowed {
			t.Fatalf("%s denied (%v): %s", r.Kind, err, why(t, j, r))
		}
	}
}

// deniedBy are the rules that deny a request, by its findings.
func deniedBy(t *testing.T, j *rulestest.Judge, r rulestest.Request) map[string]bool {
	t.Helper()
	findings, err := j.Eval(context.Background(), "findings."+r.Kind, value(t, r))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	list, _ := findings.([]any)
	for _, f := range list {
		out[fmt.Sprint(f.(map[string]any)["check"])] = true
	}
	return out
}

// mutations are the changes of a request of one of the kinds, none of others.
func mutations(r rulestest.Request, kinds []string) iter.Seq[rulestest.Mutation] {
	if !slices.Contains(kinds, r.Kind) {
		return func(func(rulestest.Mutation) bool) {}
	}
	return rulestest.Mutations(r)
}

// checkAllowed holds an allowed change against the written list.
func (s strictPod) checkAllowed(t *testing.T, r rulestest.Request, mutation rulestest.Mutation) {
	if !listed(r.Kind, mutation) {
		t.Errorf("%s of %s %s is allowed, and the field is not on the written list with that value: %v", mutation.Change, r.Kind, mutation.Where, mutation.Value)
	}
	if leavesOut := mutation.Change == rulestest.Drop || mutation.Change == rulestest.Clear; optional(mutation.Path) && !leavesOut {
		t.Errorf("%s of %s %s is allowed, where something may only be left out", mutation.Change, r.Kind, mutation.Where)
	}
	textual := slices.Contains([]rulestest.Change{rulestest.Append, rulestest.Prefix, rulestest.Empty}, mutation.Change)
	ofNode := func(beginning string) bool { return strings.HasPrefix(fmt.Sprint(mutation.Value), beginning) }
	if !textual || slices.ContainsFunc(s.node, ofNode) {
		return
	}
	for _, path := range protected {
		if strings.HasPrefix(mutation.Path, path) {
			t.Errorf("%s of %s %s is allowed: %v", mutation.Change, r.Kind, mutation.Where, mutation.Value)
		}
	}
}

// namesOfPod are what stands for something of the pod in a domain. Those the adversary's model fills in.
var namesOfPod = regexp.MustCompile(`\{[a-z][a-z ]*\}`)

// listed is true for a change of a field of the written list, to a value of the field's domain where a value was changed.
func listed(kind string, mutation rulestest.Mutation) bool {
	about := rulestest.About{Where: func(string, rulestest.Deviation) bool { return true }}
	return slices.ContainsFunc(rules.HostChosenFields(), func(h rules.HostChosen) bool {
		domain, ok := h.Domain(kind, mutation.Path)
		if !ok || !slices.Contains(leaves, mutation.Change) || namesOfPod.MatchString(strings.Join(append(domain.Is, domain.Pattern), " ")) {
			return ok
		}
		return about.Inside(domain, rulestest.Deviation{Path: mutation.Path, Got: mutation.Value})
	})
}

// optional is true for what releases of containerd set or leave out.
func optional(path string) bool {
	return path == "OCI.Linux.MaskedPaths[]" || strings.HasPrefix(path, "OCI.Linux.Sysctl")
}

// checkFieldsCovered holds that every field of the agent's messages that create things was changed above, itself or as part of a
// message that is absent from the requests: then it was denied, or is on the written list.
func checkFieldsCovered(t *testing.T, tried map[string]bool) {
	api := readAPI(t)
	if api == nil {
		return
	}
	for _, kind := range []string{"CreateContainerRequest", "ExecProcessRequest", "CreateSandboxRequest"} {
		leaves := 0
		api.leaves("grpc."+kind, "", func(path string) {
			leaves++
			if !covered(tried, kind, path) {
				t.Errorf("%s of %s is neither checked nor on the written list", path, kind)
			}
		})
		if leaves == 0 {
			t.Errorf("no field of %s was found", kind)
		}
	}
}

// covered is true for a path of which a prefix, or something below, was tried.
func covered(tried map[string]bool, kind, path string) bool {
	for done := range tried {
		if done == kind+" "+path || strings.HasPrefix(done, kind+" "+path+"[") || strings.HasPrefix(kind+" "+path, done+".") || strings.HasPrefix(kind+" "+path, done+"[") {
			return true
		}
	}
	return false
}

// agentAPI is the agent's API as facts: messages by full name.
type agentAPI struct {
	Messages map[string][]struct{ Name, Type string }
	Services map[string][]apiMethod
}

type apiMethod struct{ Method, Request string }

func readAPI(t *testing.T) *agentAPI {
	t.Helper()
	raw, err := os.ReadFile(sharedFile(t, "wire", "agent-api.json"))
	if errors.Is(err, fs.ErrNotExist) && os.Getenv("CI") != "true" {
		t.Log("SKIPPED: field coverage, agent-api.json is absent")
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var api agentAPI
	if err := json.Unmarshal(raw, &api); err != nil {
		t.Fatal(err)
	}
	return &api
}

// leaves visits the path of every scalar field, list items as "[]".
func (a *agentAPI) leaves(message, at string, visit func(string)) {
	for _, field := range a.Messages[message] {
		name := field.Name
		if name == "type" {
			name = "type_"
		}
		path := strings.TrimPrefix(at+"."+name, ".")
		typ, repeated := strings.CutPrefix(field.Type, "repeated ")
		switch _, isMessage := a.Messages[typ]; {
		case isMessage && repeated:
			a.leaves(typ, path+"[]", visit)
		case isMessage:
			a.leaves(typ, path, visit)
		default:
			visit(path)
		}
	}
}

// sharedFile is a file of [shareddata.Folder].
func sharedFile(t *testing.T, folder string, name ...string) string {
	t.Helper()
	return filepath.Join(append([]string{shareddata.Folder(t, folder)}, name...)...)
}
