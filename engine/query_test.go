// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine"
)

const documents = `package agent_policy
default X := false
X { input.a == 1 }
U { input.a == 2 }
S := {1, 2}
conflict = 1 { input.a == 1 }
conflict = 2 { input.b == 1 }
f(x) = x { true }
n := count(data.pstate)
policy_data := {"list": [1, {"k": "v"}], "2": "two"}`

func TestADocumentIsWhatOPAWouldAnswer(t *testing.T) {
	e := startText(t, documents)
	for _, tt := range []struct{ path, input, want string }{
		{"X", `{"a": 1}`, `true`},
		{"X", `{}`, `false`},
		{"U", `{"a": 2}`, `true`},
		{"U", `{}`, ``},
		{"nothing", `{}`, ``},
		{"f", `{}`, ``},
		{"X/deeper", `{}`, ``},
		{"S/1", `{}`, `1`},
		{"S/3", `{}`, ``},
		{"policy_data/list", `{}`, `[1, {"k": "v"}]`},
		{"policy_data/list/1/k", `{}`, `"v"`},
		{"policy_data/list/7", `{}`, ``},
		{"policy_data/list/-1", `{}`, ``},
		{"policy_data/2", `{}`, ``}, // a number, as OPA reads it
		{"n", `{}`, `0`},
		{"", `{"a": 2}`, `{"S": {1, 2}, "U": true, "X": false, "n": 0, "policy_data": {"2": "two", "list": [1, {"k": "v"}]}}`},
	} {
		t.Run(tt.path+" "+tt.input, func(t *testing.T) {
			var path []string
			if tt.path != "" {
				path = strings.Split(tt.path, "/")
			}
			v, ok, err := e.Query(context.Background(), path, ast.MustParseTerm(tt.input).Value)
			if err != nil || ok != (tt.want != "") {
				t.Fatalf("got %v, %v, %v", v, ok, err)
			}
			if ok && v.Compare(ast.MustParseTerm(tt.want).Value) != 0 {
				t.Errorf("got %v, want %s", v, tt.want)
			}
		})
	}
}

func TestAQueryWithoutInputLeavesInputUndefined(t *testing.T) {
	e := startText(t, "package agent_policy\nX = input")
	if v, ok, err := e.Query(context.Background(), []string{"X"}, nil); v != nil || ok || err != nil {
		t.Errorf("got %v, %v, %v", v, ok, err)
	}
}

func TestAQueryThatCannotBeEvaluatedIsAnError(t *testing.T) {
	in := ast.MustParseTerm(`{"a": 1, "b": 1}`).Value
	if _, ok, err := startText(t, documents).Query(context.Background(), []string{"conflict"}, in); ok || !errors.Is(err, engine.ErrEvaluation) {
		t.Errorf("got %v, %v", ok, err)
	}
	if _, ok, err := start(t, nil, engine.Options{}).Query(context.Background(), nil, nil); ok || !errors.Is(err, engine.ErrNoPolicy) {
		t.Errorf("got %v, %v", ok, err)
	}
}

func TestADocumentInDoubtIsUndefined(t *testing.T) {
	e := startText(t, patchRules+"\nn := count(data.pstate)\nfixed := 1")
	judge(t, e, "Patch", `{"ops":[{"op":"add","path":"/pstate/a","value":1}]}`).Doubt()
	if v, ok, err := e.Query(context.Background(), []string{"n"}, nil); ok || err != nil {
		t.Errorf("got %v, %v", v, err)
	}
	if v, ok, err := e.Query(context.Background(), []string{"fixed"}, nil); !ok || err != nil || v.Compare(ast.Number("1")) != 0 {
		t.Errorf("got %v, %v, %v", v, ok, err)
	}
}
