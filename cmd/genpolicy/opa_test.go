// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/agentproto"
	"portcullis/engine"
	"portcullis/internal/generatetest"
	"portcullis/internal/opatest"
	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/policydata"
	"portcullis/rules/settings"
)

// pair asks OPA and the engine of the guest the same, and has each keep its own state from its own ops.
type pair struct {
	*opatest.Server
	test           *testing.T
	engine         *engine.Engine
	asked, allowed int
}

func newPair(t *testing.T, s *opatest.Server, policy []byte) *pair {
	t.Helper()
	compiler, err := engine.NewCompiler(engine.CompilerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := compiler.Compile(t.Context(), policy)
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{Server: s.For(t), test: t, engine: engine.New(compiled, engine.Options{})}
	t.Cleanup(p.engine.Close)
	p.Load(policy)
	return p
}

// ask wants one decision from both. An allowed request is carried out if keep says so.
func (p *pair) ask(r rulestest.Request, keep bool) bool {
	p.Helper()
	input, err := ast.InterfaceToValue(r.Input)
	if err != nil {
		p.Fatal(err)
	}
	verdict, err := p.engine.Judge(p.Context(), engine.Request{
		EntryPoint: r.Kind, Input: func(*engine.Policy) (ast.Value, error) { return input, nil },
	})
	allowed, ops := p.Decide(r.Kind, []byte(input.String())) // values print as JSON
	if errors.Is(err, engine.ErrEvaluation) {
		// A builtin failed. The engine denies then; a server of OPA takes the expression for undefined, and must come to no more.
		if p.asked++; allowed {
			p.Errorf("%s: OPA allows what the engine cannot evaluate: %v", r.Kind, err)
		}
		return false
	}
	if err != nil {
		p.Fatal(err)
	}
	defer verdict.Discard()
	if p.asked++; allowed != verdict.Allowed {
		p.Errorf("%s: OPA says %v, the engine %v (%s)", r.Kind, allowed, verdict.Allowed, verdict.Reason)
	}
	if !allowed {
		return false
	}
	p.allowed++
	if keep && ops != nil {
		p.Apply(ops)
		if err := verdict.Commit(); err != nil {
			p.Fatal(err)
		}
	}
	return true
}

// sameState wants both to have made the same of what was allowed.
func (p *pair) sameState() {
	p.Helper()
	var theirs struct{ Result any }
	p.Read(p.Call("GET", "/v1/data/pstate", nil), &theirs)
	var ours struct{ Pstate any }
	p.Read(p.engine.State().Possible[0], &ours)
	if !reflect.DeepEqual(theirs.Result, ours.Pstate) {
		p.Errorf("the state is %v in OPA, %v in the engine", theirs.Result, ours.Pstate)
	}
}

// fullForm makes the policy of a manifest with one pod.
func fullForm(t *testing.T, file, images string, dropIns ...string) (*policydata.Policy, []byte) {
	t.Helper()
	s := generatetest.Settings(t, settings.DefaultPlatform, dropIns...)
	made, _, err := generatetest.Policies(generatetest.Manifest(t, file), s, generatetest.Images(t, images))
	if err != nil || len(made) == 0 {
		t.Fatalf("%s: %d policies (%v)", file, len(made), err)
	}
	text, err := made[0].Full(rules.Text())
	if err != nil {
		t.Fatal(err)
	}
	return made[0], text
}

// The corpus' requests on a real OPA server, whose state is changed by PATCH with the ops that it returned.
func TestAnOPAServerDecidesTheCorpusAsTheEngineDoes(t *testing.T) {
	server, asked := opatest.Start(t), 0
	generatetest.EachPod(t, func(name, path, images string) {
		t.Run(name, func(t *testing.T) {
			_, policy := fullForm(t, path, images, "compat-kata")
			p := newPair(t, server, policy)
			for _, c := range readCorpus(t, filepath.Join(filepath.Dir(path), "testcases.json")) {
				if got := p.ask(rulestest.Request{Kind: c.Kind, Input: c.input(t)}, true); got != c.Allowed {
					t.Errorf("%s: allowed is %v, want %v", c.Description, got, c.Allowed)
				}
			}
			p.sameState()
			asked += p.asked
		})
	})
	if asked == 0 {
		t.Fatal("no request was asked")
	}
	t.Logf("%d requests, each decided alike", asked)
}

// recorded is a request of the corpus.
type recorded struct {
	Description, Kind string
	Allowed           bool
	Request           json.RawMessage
}

func readCorpus(t *testing.T, file string) []recorded {
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

// input is what the policy sees of the request, with every field.
func (r recorded) input(t *testing.T) map[string]any {
	t.Helper()
	message, ok := agentproto.MessageByName(r.Kind)
	if !ok {
		t.Fatalf("no message %s", r.Kind)
	}
	m, err := agentproto.FromInput(message, r.Request)
	if err != nil {
		t.Fatal(err)
	}
	value, err := agentproto.Input(m)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := ast.JSON(value)
	if err != nil {
		t.Fatal(err)
	}
	return plain.(map[string]any)
}

// Whole pods, and among their requests some that differ in one leaf, on a real OPA server.
func TestAnOPAServerDecidesPodsAsTheEngineDoes(t *testing.T) {
	const step = 23 // every so many-th change: all of them are tried on the engine elsewhere
	server := opatest.Start(t)
	for _, name := range []string{"web-pinned", "mesh-sidecar", "volumes", "security", "gpu", "downward", "init-chain", "job-indexed"} {
		t.Run(name, func(t *testing.T) {
			policy, text := fullForm(t, "../../rules/generate/testdata/pods/"+name+".yaml", "../../rules/generate/testdata/images.json", "ordered")
			p := newPair(t, server, text)
			e := rulestest.Emulator{Policy: policy, Pod: rulestest.DefaultPod(policy)}
			for _, r := range e.All() {
				i := 0
				for m := range rulestest.Mutations(r) {
					if i++; i%step == 1 {
						p.ask(m.Request, false)
					}
				}
				p.start(r, policy)
			}
			p.sameState()
			p.life(policy)
			p.sameState()
			t.Logf("%d requests, %d allowed by both", p.asked, p.allowed)
		})
	}
}

// start carries out a request of a pod's start. The order is enforced, so an init
// container ends when it has started, unless others need it to run.
func (p *pair) start(r rulestest.Request, policy *policydata.Policy) {
	p.Helper()
	if !p.ask(r, true) {
		p.Fatalf("%s of %v is denied by both", r.Kind, r.Input["container_id"])
	}
	if r.Kind != "StartContainerRequest" {
		return
	}
	for name := range policy.Containers {
		if rulestest.ID(name) == r.Input["container_id"] && name != policydata.SandboxContainer && !awaited(policy, name) {
			p.ask(rulestest.Request{Kind: "WaitProcessResponse", Input: map[string]any{
				"request":  map[string]any{"container_id": rulestest.ID(name), "exec_id": ""},
				"response": map[string]any{"status": 0},
			}}, true)
		}
	}
}

// awaited says whether a container is needed running by another one.
func awaited(policy *policydata.Policy, name string) bool {
	for _, c := range policy.Containers {
		if slices.Contains(c.After, policydata.After{Container: name, State: policydata.Started}) {
			return true
		}
	}
	return false
}

// life asks every request of the API of every container, and of one that does not
// exist, and copies the files whose content the policy knows, and others.
func (p *pair) life(policy *policydata.Policy) {
	p.Helper()
	for _, name := range append(slices.Sorted(maps.Keys(policy.Containers)), "nobody") {
		for _, e := range rules.Entries() {
			message, ok := agentproto.MessageByName(e.Request)
			if !ok {
				p.Fatalf("no message %s", e.Request)
			}
			request := "{}"
			if message.Descriptor().Fields().ByName("container_id") != nil {
				request = fmt.Sprintf(`{"container_id": %q}`, rulestest.ID(name))
			}
			p.ask(rulestest.Request{Kind: e.Request, Input: recorded{Kind: e.Request, Request: json.RawMessage(request)}.input(p.test)}, true)
		}
	}
	e := rulestest.Emulator{Policy: policy, Pod: rulestest.DefaultPod(policy)}
	for _, name := range slices.Sorted(maps.Keys(policy.Containers)) {
		for _, r := range e.CopyFiles(name) {
			for _, sum := range []any{r.Input["data_sha256"], "", strings.Repeat("0", 64)} {
				r.Input["data_sha256"] = sum
				p.ask(r, true)
			}
		}
	}
}
