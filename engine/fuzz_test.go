// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"portcullis/engine"
	"portcullis/engine/policytext"
)

// FuzzCompile compiles arbitrary text, and decides by what compiles. A text and the same text with its data kept a rule decide
// alike.
func FuzzCompile(f *testing.F) {
	for _, seed := range []string{
		podRules + podData(1), compactText(podRules, podData(1)),
		"package agent_policy\nX { policy_data.a == 1 }\npolicy_data := {\"a\": 1}",
		"package agent_policy\nX if policy_data[0]\npolicy_data := [true, null, -1e3, \"\\u00e9\"]",
		"package agent_policy\ns := `\npolicy_data := {}`\nX { s }", "package agent_policy\nX {{{{", "\n", "import data.x",
	} {
		f.Add(seed)
	}
	c, err := engine.NewCompiler(engine.CompilerOptions{Timeout: 100 * time.Millisecond, HeldRules: []policytext.Held{{Text: []byte(podRules)}}})
	if err != nil {
		f.Fatal(err)
	}
	decide := func(t *testing.T, text string) (*engine.Verdict, error) {
		p, err := c.Compile(context.Background(), []byte(text))
		if errors.Is(err, engine.ErrCompilePanic) {
			t.Fatal(err)
		}
		if err != nil {
			return nil, err
		}
		e := engine.New(p, engine.Options{Workers: 1, Timeout: 100 * time.Millisecond})
		defer e.Close()
		p.Reaches("X", "a")
		v, err := e.Judge(context.Background(), request("X", `{"a": 1}`))
		if errors.Is(err, engine.ErrPanic) {
			t.Fatal(err)
		}
		return v, err
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := decide(t, text)
		rule, ruleErr := decide(t, text+"\n# the data stays a rule")
		if err != nil || ruleErr != nil || strings.HasPrefix(text, "package agent_policy\n\nrules") {
			return
		}
		if v.Allowed != rule.Allowed {
			t.Errorf("allowed %v, as one module %v", v.Allowed, rule.Allowed)
		}
	})
}
