package rules_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"portcullis/rules"
	"portcullis/rules/policydata"
	"portcullis/rules/rulestest"
)

// Every change of a single leaf of an allowed request is judged in the state in
// which the request itself was allowed. What is still allowed must be on the
// written list of fields that the host may choose, and be at most 2 % in all.
func TestSingleLeafChangesAreDenied(t *testing.T) {
	pods := map[string]*policydata.Policy{"rich": richPod(t), "one": onePod(t)}
	tally := mutationTally{allowed: map[string]int{}, tried: map[string]bool{}}
	for _, name := range []string{"rich", "one"} {
		tally.add(t, pods[name])
	}
	t.Logf("%d single-leaf changes, %d allowed (%.2f %%)\n%s", tally.total, tally.sum(), tally.percent(), &tally)
	if tally.total < 1000 {
		t.Fatalf("only %d changes were made", tally.total)
	}
	if n := len(rules.HostChosenFields()); n > 25 {
		t.Errorf("the written list has %d entries, want at most 25", n)
	}
	checkFieldsCovered(t, tally.tried)
	if tally.percent() > 2 {
		t.Errorf("%.2f %% are allowed, want at most 2 %%", tally.percent())
	}
}

// protected are the fields whose strings nothing may be added to or taken from.
var protected = []string{
	"OCI.Process.Args", "OCI.Process.User", "OCI.Mounts[].source", "OCI.Mounts[].destination", "OCI.Root.Path",
	"OCI.Annotations[io.kubernetes.cri.image-name]", "storages[].source", "storages[].mount_point", "process.Args", "process.User",
}

type mutationTally struct {
	total   int
	allowed map[string]int
	tried   map[string]bool // request and path of every change
}

func (m *mutationTally) sum() (n int) {
	for _, count := range m.allowed {
		n += count
	}
	return n
}

func (m *mutationTally) percent() float64 { return 100 * float64(m.sum()) / float64(m.total) }

func (m *mutationTally) String() string {
	var lines []string
	for what, count := range m.allowed {
		lines = append(lines, fmt.Sprintf("%4d  %s", count, what))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (m *mutationTally) add(t *testing.T, p *policydata.Policy) {
	ctx := context.Background()
	j := judgeCompact(t, p)
	for _, r := range emulator(p).All() {
		if chosen := []string{"CreateContainerRequest", "ExecProcessRequest", "CreateSandboxRequest"}; slices.Contains(chosen, r.Kind) {
			for _, mutation := range rulestest.Mutations(r) {
				m.total++
				d, err := j.Decide(ctx, r.Kind, value(t, mutation.Request))
				if err != nil {
					t.Fatalf("%s %s: %v", mutation.Change, mutation.Where, err)
				}
				m.tried[r.Kind+" "+mutation.Path] = true
				if d.Allowed {
					m.judge(t, r.Kind, mutation)
				}
			}
		}
		if d, err := j.Ask(ctx, r); err != nil || !d.Allowed {
			t.Fatalf("%s denied (%v): %s", r.Kind, err, why(t, j, r))
		}
	}
}

// judge counts an allowed change and holds it against the written list.
func (m *mutationTally) judge(t *testing.T, kind string, mutation rulestest.Mutation) {
	m.allowed[fmt.Sprintf("%s %s: %s", mutation.Change, kind, mutation.Path)]++
	listed := func(h rules.HostChosen) bool { return h.Covers(kind, mutation.Path) }
	if !slices.ContainsFunc(rules.HostChosenFields(), listed) {
		t.Errorf("%s of %s %s is allowed, and the field is not on the written list", mutation.Change, kind, mutation.Where)
	}
	textual := slices.Contains([]rulestest.Change{rulestest.Append, rulestest.Prefix, rulestest.Empty}, mutation.Change)
	for _, path := range protected {
		if textual && strings.HasPrefix(mutation.Path, path) {
			t.Errorf("%s of %s %s is allowed", mutation.Change, kind, mutation.Where)
		}
	}
}

// checkFieldsCovered holds that every field of the agent's messages that create
// things was changed above, itself or as part of a message that is absent from
// the requests: then it was denied, or is on the written list.
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

func readMethods(t *testing.T) []apiMethod {
	t.Helper()
	if api := readAPI(t); api != nil {
		return api.Services["grpc.AgentService"]
	}
	return nil
}

func readAPI(t *testing.T) *agentAPI {
	t.Helper()
	raw, err := os.ReadFile(sharedFile(t, "PORTCULLIS_WIRE", "wire", "agent-api.json"))
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

// sharedFile finds test data that is not part of the project: in the directory
// an environment variable names, or ../shared beside the project.
func sharedFile(t *testing.T, variable, dir string, name ...string) string {
	t.Helper()
	if root := os.Getenv(variable); root != "" {
		return filepath.Join(append([]string{root}, name...)...)
	}
	at, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; at != "/"; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			break
		}
	}
	return filepath.Join(append([]string{at, "..", "shared", dir}, name...)...)
}
