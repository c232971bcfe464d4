// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"context"
	"regexp"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine"
	"portcullis/rules"
)

// Reasons that are compiled late, for one request alone, say what all of them say that are compiled at once.
func TestReasonsCompiledLateSayTheSame(t *testing.T) {
	p := richPod(t)
	text, err := p.Full(rules.Text())
	if err != nil {
		t.Fatal(err)
	}
	whole, late := judgeWith(t, string(text), false), judgeWith(t, string(text), true)
	create := emulator(p).CreateContainer("web")
	create.Input["OCI"].(map[string]any)["Process"].(map[string]any)["Args"] = []any{"/bin/other"}
	inputs := map[string][]ast.Value{"CreateContainerRequest": {value(t, create)}}
	for _, m := range regexp.MustCompile(`(?m)^reasons\.(\w+)`).FindAllStringSubmatch(rules.Reasons(), -1) {
		inputs[m[1]] = append(inputs[m[1]], ast.NewObject())
	}
	if len(inputs) < 10 {
		t.Fatalf("%d requests have reasons", len(inputs))
	}
	said := 0
	for request, list := range inputs {
		for _, input := range list {
			want, got := whole(request, input), late(request, input)
			if got != want {
				t.Errorf("%s: late %q, at once %q", request, got, want)
			}
			if want != "no rule of the policy allows it" {
				said++
			}
		}
	}
	if said < 8 {
		t.Errorf("%d of them say something", said)
	}
}

// judgeWith gives the reasons for which an engine with the held rules denies.
func judgeWith(t *testing.T, text string, late bool) func(request string, input ast.Value) string {
	t.Helper()
	c, err := engine.NewCompiler(engine.CompilerOptions{HeldRules: rules.Held(), LateReasons: late, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Compile(context.Background(), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	e := engine.New(p, engine.Options{Timeout: time.Minute})
	t.Cleanup(func() { e.Close() })
	return func(request string, input ast.Value) string {
		v, err := e.Judge(context.Background(), engine.Request{EntryPoint: request, Lenient: true,
			Input: func(*engine.Policy) (ast.Value, error) { return input, nil }})
		if err != nil {
			t.Fatalf("%s: %v", request, err)
		}
		return v.Reason
	}
}
