// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine"
	"portcullis/engine/policytext"
)

//go:embed testdata/pod.rego
var podRules string

// podData is the policy_data of a pod with n containers, in the text form of a generated policy.
func podData(n int) string {
	containers := map[string]any{}
	for i := range n {
		env := []string{}
		for j := range 10 {
			env = append(env, fmt.Sprintf("^VARIABLE_%d=value-[0-9]+$", j))
		}
		containers[fmt.Sprintf("c%d", i)] = map[string]any{
			"args": []string{"/bin/app", "--serve"}, "cwd": "/", "env": env, "exec": []string{"/bin/probe --quick"},
		}
	}
	text, err := json.MarshalIndent(map[string]any{"containers": containers, "interactive": []string{}}, "", "  ")
	if err != nil {
		panic(err)
	}
	return "policy_data := " + string(text)
}

func compactText(rules, data string) string {
	return fmt.Sprintf("package agent_policy\n\nrules := \"sha256:%x\"\n\n%s", sha256.Sum256([]byte(rules)), data)
}

func newCompiler(t testing.TB, held ...string) *engine.Compiler {
	t.Helper()
	var opts engine.CompilerOptions
	for _, h := range held {
		opts.HeldRules = append(opts.HeldRules, policytext.Held{Text: []byte(h)})
	}
	c, err := engine.NewCompiler(opts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func compile(t testing.TB, text string) *engine.Policy {
	t.Helper()
	p, err := newCompiler(t).Compile(context.Background(), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func start(t testing.TB, p *engine.Policy, opts engine.Options) *engine.Engine {
	t.Helper()
	e := engine.New(p, opts)
	t.Cleanup(e.Close)
	return e
}

func startText(t testing.TB, text string) *engine.Engine {
	t.Helper()
	return start(t, compile(t, text), engine.Options{})
}

func request(entryPoint, input string) engine.Request {
	v := ast.MustParseTerm(input).Value
	return engine.Request{EntryPoint: entryPoint, Input: func(*engine.Policy) (ast.Value, error) { return v, nil }}
}

func judge(t testing.TB, e *engine.Engine, entryPoint, input string) *engine.Verdict {
	t.Helper()
	v, err := e.Judge(context.Background(), request(entryPoint, input))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// state is the current state as text.
func state(t testing.TB, e *engine.Engine) string {
	t.Helper()
	text, err := json.Marshal(e.State().Possible)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func createInput(id, name string) string {
	return fmt.Sprintf(`{"container_id": %q, "OCI": {"Annotations": {"io.kubernetes.cri.container-name": %q},
		"Process": {"Args": ["/bin/app", "--serve"], "Cwd": "/", "Env": ["VARIABLE_1=value-1"]}}}`, id, name)
}

const execInput = `{"container_id": "a", "process": {"Args": ["/bin/probe", "--quick"], "Cwd": "/", "Terminal": false,
	"Env": ["VARIABLE_0=value-0", "VARIABLE_9=value-77"]}}`
