// SPDX-License-Identifier: Apache-2.0

package prove_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/internal/opatest"
	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/policydata"
)

// fullFormEach is which witnesses an OPA server gets as the full form of the policy; the others as rules with policy_data beside
// them.
const fullFormEach = 40

// onServer asks a real OPA server for every request of witnesses, under both policies.
func onServer(t *testing.T, witnesses []shown) {
	server, asked := opatest.Start(t), 0
	loaded := false // the rules, without data of their own
	for n, w := range witnesses {
		for _, side := range []struct {
			policy *policydata.Policy
			last   bool
		}{{w.loose, true}, {w.strict, false}} {
			if n%fullFormEach == 0 {
				full, err := side.policy.Full(rules.Text())
				if err != nil {
					t.Fatal(err)
				}
				if loaded {
					server.Call("DELETE", "/v1/data/agent_policy/policy_data", nil)
				}
				server.Load(full)
				loaded = false
			} else {
				raw, err := side.policy.JSON()
				if err != nil {
					t.Fatal(err)
				}
				if !loaded {
					server.Load([]byte(rules.Text()))
				}
				server.Call("PUT", "/v1/data/agent_policy/policy_data", raw)
				server.Reset()
				loaded = true
			}
			for i, r := range w.witness.Requests {
				input, err := json.Marshal(r.Input)
				if err != nil {
					t.Fatal(err)
				}
				allowed, ops := server.Decide(r.Kind, input)
				if want := side.last || i < len(w.witness.Requests)-1; r.Kind != observed && allowed != want {
					t.Errorf("%s: request %d of the witness, %s: allowed is %v, want %v", w.about, i, r.Kind, allowed, want)
				}
				server.Apply(ops)
				asked++
			}
		}
	}
	t.Logf("%d witnesses, %d requests", len(witnesses), asked)
}

// onRegorus asks the engine of kata-agent for the same, from the full form. PORTCULLIS_REGORUS names the program of .ci/regorus.
func onRegorus(t *testing.T, witnesses []shown) {
	program := os.Getenv("PORTCULLIS_REGORUS")
	if program == "" {
		t.Log("not asked here: PORTCULLIS_REGORUS names no program; make prove-force builds it")
		return
	}
	base, err := compiled()
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, w := range witnesses {
		for _, side := range []struct {
			policy *policydata.Policy
			last   bool
		}{{w.loose, true}, {w.strict, false}} {
			text, err := side.policy.Full(rules.Text())
			if err != nil {
				t.Fatal(err)
			}
			answers := decide(t, program, text, withStates(t, base, side.policy, w.witness.Requests))
			if len(answers) != len(w.witness.Requests) {
				t.Fatalf("%s: %d answers to %d requests", w.about, len(answers), len(w.witness.Requests))
			}
			for i, answer := range answers {
				allowed := strings.HasPrefix(answer, "true")
				if want := side.last || i < len(answers)-1; w.witness.Requests[i].Kind != observed && allowed != want {
					t.Errorf("%s: request %d of the witness, %s: regorus says %.300s, want %v", w.about, i, w.witness.Requests[i].Kind, answer, want)
				}
				asked++
			}
		}
	}
	t.Logf("%d witnesses, %d requests", len(witnesses), asked)
}

// withStates are requests as the program of .ci/regorus reads them, each with the state that it comes in.
func withStates(t *testing.T, base *rulestest.Judge, p *policydata.Policy, requests []rulestest.Request) *bytes.Buffer {
	t.Helper()
	raw, err := p.JSON()
	if err != nil {
		t.Fatal(err)
	}
	judge, err := base.Under(raw)
	if err != nil {
		t.Fatal(err)
	}
	var lines bytes.Buffer
	for _, r := range requests {
		state, err := judge.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := json.NewEncoder(&lines).Encode(map[string]any{"kind": r.Kind, "request": r.Input, "data": map[string]any{"pstate": state}}); err != nil {
			t.Fatal(err)
		}
		if _, err := judge.Ask(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	return &lines
}

func decide(t *testing.T, program string, policy []byte, lines *bytes.Buffer) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.rego")
	if err := os.WriteFile(file, policy, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, file)
	cmd.Stdin, cmd.Stderr = lines, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}
