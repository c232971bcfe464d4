// SPDX-License-Identifier: Apache-2.0

//go:build regorus

package rules_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/policydata"
)

// TestTheAgentsOwnEngineDecidesAlike holds the full form to regorus, which kata-agent evaluates policies with: each request of
// whole pods and every single-leaf change of it, in the state in which it comes. PORTCULLIS_REGORUS names the program of
// .ci/regorus; `make regorus` builds it and runs this test.
func TestTheAgentsOwnEngineDecidesAlike(t *testing.T) {
	program := os.Getenv("PORTCULLIS_REGORUS")
	if program == "" {
		t.Fatal("PORTCULLIS_REGORUS names no program: run make regorus")
	}
	for name, p := range map[string]*policydata.Policy{"rich": richPod(t), "one": onePod(t), "many": manyPod(t, 3), "kata": onePod(t, "compat-kata"), "shadowed": shadowingPod(t)} {
		t.Run(name, func(t *testing.T) {
			text, err := p.Full(rules.Text())
			if err != nil {
				t.Fatal(err)
			}
			compareEngines(t, program, string(text), askOPA(t, p, judgeCompact(t, p)))
		})
	}
	t.Run("upstream's shape", func(t *testing.T) {
		p := upstreamPod(t)
		compareEngines(t, program, upstreamPolicy(t, p), askOPA(t, p, judgeUpstream(t, p)))
	})
}

// shadowingPod has a variable of the image that the pod sets too.
func shadowingPod(t *testing.T) *policydata.Policy {
	p := onePod(t)
	e := &p.Containers["web"].Env
	name, _, _ := strings.Cut(e.Fixed[0], "=")
	e.Shadowed = []string{name + "=of the image"}
	return p
}

func compareEngines(t *testing.T, program, text string, asked *questions) {
	policy := filepath.Join(t.TempDir(), "policy.rego")
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, policy)
	cmd.Stdin, cmd.Stderr = &asked.lines, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	answers := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(answers) != len(asked.allowed) {
		t.Fatalf("%d answers to %d requests", len(answers), len(asked.allowed))
	}
	for i, answer := range answers {
		if strings.HasPrefix(answer, "true") != asked.allowed[i] {
			t.Errorf("%s: regorus says %.300s, OPA %v", asked.names[i], answer, asked.allowed[i])
		}
	}
	t.Logf("%d requests, decided alike", len(answers))
}

// questions are requests as .ci/regorus reads them, with what OPA's library says to each.
type questions struct {
	lines   bytes.Buffer
	names   []string
	allowed []bool
}

func askOPA(t *testing.T, p *policydata.Policy, j *rulestest.Judge) *questions {
	ctx, asked := context.Background(), &questions{}
	ask := func(r rulestest.Request, name string) {
		state, err := j.State(ctx)
		if err != nil {
			t.Fatal(err)
		}
		d, err := j.Decide(ctx, r.Kind, value(t, r))
		if err != nil {
			t.Fatal(err)
		}
		line := map[string]any{"kind": r.Kind, "request": r.Input, "data": map[string]any{"pstate": state}}
		if err := json.NewEncoder(&asked.lines).Encode(line); err != nil {
			t.Fatal(err)
		}
		asked.names, asked.allowed = append(asked.names, r.Kind+" "+name), append(asked.allowed, d.Allowed)
	}
	for _, r := range emulator(p).All() {
		for m := range rulestest.Mutations(r) {
			ask(m.Request, string(m.Change)+" of "+m.Where)
		}
		ask(r, "itself")
		if d, err := j.Ask(ctx, r); err != nil || !d.Allowed {
			t.Fatalf("%s is denied (%v)", r.Kind, err)
		}
	}
	return asked
}
