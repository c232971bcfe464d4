// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"portcullis/engine"
)

// patchRules carry out what the input says.
const patchRules = `package agent_policy
	Patch = {"allowed": true, "ops": input.ops}
	Get = {"allowed": true, "ops": []} { data.pstate == input.want }
	OneOf { data.pstate.a == 1 } OneOf { data.pstate.a == 2 }
	IsOne { data.pstate.a == 1 }
	Put = {"allowed": true, "ops": [{"op": "add", "path": "/pstate/b", "value": data.pstate.a}]}
	Grow = {"allowed": true, "ops": [{"op": "add", "path": concat("/", ["/pstate", input.key]), "value": 1}]}
	PutOnce = {"allowed": true, "ops": [{"op": "add", "path": "/pstate/b", "value": 1}]} { not data.pstate.b }
	Sets = {"allowed": true, "ops": [{"op": "add", "path": "/pstate/s", "value": {"b", "a"}}]}
	Seen = {"ops": [{"op": "add", "path": "/pstate/seen", "value": input.status}]} { input.status }
	Fixed = {"allowed": true, "ops": []}
	Fails = {"ops": [{"op": "remove", "path": "/pstate/none"}]}
`

// restore puts the engine into the state {"pstate": pstate}, or into one of several.
func restore(t testing.TB, e *engine.Engine, pstates ...string) {
	t.Helper()
	var s engine.State
	for _, p := range pstates {
		s.Possible = append(s.Possible, json.RawMessage(`{"pstate":`+p+`}`))
	}
	if err := e.Restore(context.Background(), e.Active(), s); err != nil {
		t.Fatal(err)
	}
}

// TestJSONPatch has the cases of RFC 6902, appendix A, with /pstate as the root, and some of its other rules. A case without a
// result fails, and must leave the state as it was.
func TestJSONPatch(t *testing.T) {
	e := startText(t, patchRules)
	for _, tt := range []struct{ name, doc, ops, want string }{
		{"A.1 adding an object member", `{"foo":"bar"}`, `[{"op":"add","path":"/baz","value":"qux"}]`, `{"baz":"qux","foo":"bar"}`},
		{"A.2 adding an array element", `{"foo":["bar","baz"]}`, `[{"op":"add","path":"/foo/1","value":"qux"}]`, `{"foo":["bar","qux","baz"]}`},
		{"A.3 removing an object member", `{"baz":"qux","foo":"bar"}`, `[{"op":"remove","path":"/baz"}]`, `{"foo":"bar"}`},
		{"A.4 removing an array element", `{"foo":["bar","qux","baz"]}`, `[{"op":"remove","path":"/foo/1"}]`, `{"foo":["bar","baz"]}`},
		{"A.5 replacing a value", `{"baz":"qux","foo":"bar"}`, `[{"op":"replace","path":"/baz","value":"boo"}]`, `{"baz":"boo","foo":"bar"}`},
		{"A.6 moving a value", `{"foo":{"bar":"baz","waldo":"fred"},"qux":{"corge":"grault"}}`,
			`[{"op":"move","from":"/foo/waldo","path":"/qux/thud"}]`, `{"foo":{"bar":"baz"},"qux":{"corge":"grault","thud":"fred"}}`},
		{"A.7 moving an array element", `{"foo":["all","grass","cows","eat"]}`, `[{"op":"move","from":"/foo/1","path":"/foo/3"}]`, `{"foo":["all","cows","eat","grass"]}`},
		{"A.8 testing a value: success", `{"baz":"qux","foo":["a",2,"c"]}`,
			`[{"op":"test","path":"/baz","value":"qux"},{"op":"test","path":"/foo/1","value":2}]`, `{"baz":"qux","foo":["a",2,"c"]}`},
		{"A.9 testing a value: error", `{"baz":"qux"}`, `[{"op":"test","path":"/baz","value":"bar"}]`, ""},
		{"A.10 adding a nested member object", `{"foo":"bar"}`, `[{"op":"add","path":"/child","value":{"grandchild":{}}}]`, `{"child":{"grandchild":{}},"foo":"bar"}`},
		{"A.11 ignoring unrecognized elements", `{"foo":"bar"}`, `[{"op":"add","path":"/baz","value":"qux","xyz":123}]`, `{"baz":"qux","foo":"bar"}`},
		{"A.12 adding to a nonexistent target", `{"foo":"bar"}`, `[{"op":"add","path":"/baz/bat","value":"qux"}]`, ""},
		{"A.14 escape ordering", `{"/":9,"~1":10}`, `[{"op":"test","path":"/~01","value":10}]`, `{"/":9,"~1":10}`},
		{"A.15 comparing strings and numbers", `{"/":9,"~1":10}`, `[{"op":"test","path":"/~01","value":"10"}]`, ""},
		{"A.16 adding an array value", `{"foo":["bar"]}`, `[{"op":"add","path":"/foo/-","value":["abc","def"]}]`, `{"foo":["bar",["abc","def"]]}`},

		{"add replaces a member", `{"a":1}`, `[{"op":"add","path":"/a","value":2}]`, `{"a":2}`},
		{"add at the root", `{"a":1}`, `[{"op":"add","path":"","value":{"b":1}}]`, `{"b":1}`},
		{"add null", `{}`, `[{"op":"add","path":"/a","value":null}]`, `{"a":null}`},
		{"add at the array's length", `{"a":[1]}`, `[{"op":"add","path":"/a/1","value":2}]`, `{"a":[1,2]}`},
		{"add beyond the array", `{"a":[1]}`, `[{"op":"add","path":"/a/2","value":2}]`, ""},
		{"add at a leading zero", `{"a":[1,2]}`, `[{"op":"add","path":"/a/01","value":2}]`, ""},
		{"add at a negative index", `{"a":[1,2]}`, `[{"op":"add","path":"/a/-1","value":2}]`, ""},
		{"add at no index", `{"a":[1,2]}`, `[{"op":"add","path":"/a/x","value":2}]`, ""},
		{"add below a scalar", `{"a":1}`, `[{"op":"add","path":"/a/b","value":2}]`, ""},
		{"add without value", `{}`, `[{"op":"add","path":"/a"}]`, ""},
		{"add to an empty key", `{}`, `[{"op":"add","path":"/","value":1}]`, `{"":1}`},
		{"an escaped slash", `{}`, `[{"op":"add","path":"/a~1b","value":1}]`, `{"a/b":1}`},
		{"remove what is not there", `{"a":1}`, `[{"op":"remove","path":"/b"}]`, ""},
		{"remove past the end", `{"a":[1]}`, `[{"op":"remove","path":"/a/-"}]`, ""},
		{"replace what is not there", `{"a":1}`, `[{"op":"replace","path":"/b","value":1}]`, ""},
		{"replace an array element", `{"a":[1,2,3]}`, `[{"op":"replace","path":"/a/1","value":9}]`, `{"a":[1,9,3]}`},
		{"replace without value", `{"a":1}`, `[{"op":"replace","path":"/a"}]`, ""},
		{"copy", `{"a":{"b":1}}`, `[{"op":"copy","from":"/a","path":"/c"}]`, `{"a":{"b":1},"c":{"b":1}}`},
		{"a copy is not the same thing", `{"a":{"b":1}}`, `[{"op":"copy","from":"/a","path":"/c"},{"op":"add","path":"/c/b","value":2}]`, `{"a":{"b":1},"c":{"b":2}}`},
		{"copy what is not there", `{}`, `[{"op":"copy","from":"/a","path":"/c"}]`, ""},
		{"move what is not there", `{}`, `[{"op":"move","from":"/a","path":"/c"}]`, ""},
		{"move into itself", `{"a":{"b":{}}}`, `[{"op":"move","from":"/a","path":"/a/b/c"}]`, ""},
		{"move without from", `{"a":1}`, `[{"op":"move","path":"/c"}]`, ""},
		{"test objects in another order", `{"a":{"x":1,"y":2}}`, `[{"op":"test","path":"/a","value":{"y":2,"x":1}}]`, `{"a":{"x":1,"y":2}}`},
		{"test what is not there", `{}`, `[{"op":"test","path":"/a","value":null}]`, ""},
		{"an unknown operation", `{}`, `[{"op":"increment","path":"/a"}]`, ""},
		{"no operation", `{}`, `[{"path":"/a","value":1}]`, ""},
		{"no path", `{}`, `[{"op":"add","value":1}]`, ""},
		{"an operation that is no object", `{}`, `["add"]`, ""},
		{"all or none", `{"a":1}`, `[{"op":"add","path":"/b","value":1},{"op":"remove","path":"/a"},{"op":"remove","path":"/none"}]`, ""},
		{"in order", `{}`, `[{"op":"add","path":"/a","value":{}},{"op":"add","path":"/a/b","value":1}]`, `{"a":{"b":1}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ops := strings.NewReplacer(`"path":"`, `"path":"/pstate`, `"from":"`, `"from":"/pstate`).Replace(tt.ops)
			checkPatch(t, e, tt.doc, ops, tt.want)
		})
	}
}

func checkPatch(t *testing.T, e *engine.Engine, doc, ops, want string) {
	t.Helper()
	restore(t, e, doc)
	before := state(t, e)
	v := judge(t, e, "Patch", `{"ops": `+ops+`}`)
	if v.Allowed != (want != "") || v.Holds() != v.Allowed || v.Allowed != (v.Reason == "") {
		t.Fatalf("allowed %v, holds %v: %s", v.Allowed, v.Holds(), v.Reason)
	}
	if got := state(t, e); got != before {
		t.Errorf("the state changed without a commit: %s", got)
	}
	if err := v.Commit(); err != nil {
		t.Fatal(err)
	}
	if want == "" {
		want = doc
	}
	if got := state(t, e); got != `[{"pstate":`+want+`}]` {
		t.Errorf("got %s, want pstate %s", got, want)
	}
	if !judge(t, e, "Get", `{"want": `+want+`}`).Allowed {
		t.Error("the rules see another state")
	}
}

func TestOpsReachOnlyTheState(t *testing.T) {
	e := startText(t, patchRules)
	for _, path := range []string{"", "/", "/agent_policy", "/pstat", "/pstates", "/pstate2/a", "//pstate/a", "pstate/a", "/~0pstate", "/PSTATE/a"} {
		for _, ops := range []string{
			fmt.Sprintf(`[{"op":"add","path":%q,"value":{}}]`, path),
			fmt.Sprintf(`[{"op":"copy","from":"/pstate","path":%q}]`, path),
			fmt.Sprintf(`[{"op":"copy","from":%q,"path":"/pstate/x"}]`, path),
			fmt.Sprintf(`[{"op":"test","path":%q,"value":{}}]`, path),
		} {
			checkPatch(t, e, `{"a":1}`, ops, "")
		}
	}
	checkPatch(t, e, `{"a":1}`, `[{"op":"add","path":["pstate","a"],"value":{}}]`, "")
}

func TestAStateThatIsTooLargeIsDenied(t *testing.T) {
	e := startText(t, patchRules)
	half := strings.Repeat("x", engine.MaxState/3)
	v := judge(t, e, "Patch", `{"ops":[{"op":"add","path":"/pstate/a","value":"`+half+`"}]}`)
	if err := v.Commit(); !v.Allowed || err != nil {
		t.Fatalf("%v %s", err, v.Reason)
	}
	// The states before and after must fit together, since both are possible after a doubt.
	v = judge(t, e, "Patch", `{"ops":[{"op":"add","path":"/pstate/b","value":"`+half+`"}]}`)
	if v.Allowed || !strings.HasPrefix(v.Reason, "state-too-large") {
		t.Errorf("%v %q", v.Allowed, v.Reason)
	}
}

func TestStateSurvivesARestart(t *testing.T) {
	p := compile(t, patchRules)
	first := start(t, p, engine.Options{})
	var recorded []engine.State
	first.RecordTo(func(s engine.State) error { recorded = append(recorded, s); return nil })
	if err := judge(t, first, "Patch", `{"ops":[{"op":"add","path":"/pstate/a","value":1}]}`).Commit(); err != nil {
		t.Fatal(err)
	}
	now := first.State()
	v := judge(t, first, "Sets", `{}`)
	if err := errors.Join(v.Begin(), v.Commit()); err != nil || len(recorded) != 3 {
		t.Fatalf("%d states recorded, %v", len(recorded), err)
	}
	for name, tt := range map[string]struct {
		state engine.State
		want  string
	}{
		"the current state":          {now, `[{"pstate":{"a":1}}]`},
		"after a commit":             {recorded[2], `[{"pstate":{"a":1,"s":["a","b"]}}]`},
		"while the agent is at work": {recorded[1], `[{"pstate":{"a":1}},{"pstate":{"a":1,"s":["a","b"]}}]`},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := json.Marshal(tt.state)
			if err != nil {
				t.Fatal(err)
			}
			var back engine.State
			if err := json.Unmarshal(text, &back); err != nil {
				t.Fatal(err)
			}
			second := start(t, nil, engine.Options{})
			if err := second.Restore(context.Background(), p, back); err != nil {
				t.Fatal(err)
			}
			if got := state(t, second); got != tt.want || second.Active() != p {
				t.Errorf("got %s", got)
			}
			if !judge(t, second, "IsOne", `{}`).Allowed {
				t.Error("the rules do not see it")
			}
		})
	}
}

func TestRestoreRefusesWhatIsNoState(t *testing.T) {
	e := startText(t, patchRules)
	many := make([]json.RawMessage, engine.MaxStates+1)
	for i := range many {
		many[i] = json.RawMessage(fmt.Sprintf(`{"pstate":%d}`, i))
	}
	for name, tt := range map[string]struct {
		possible []json.RawMessage
		want     error
	}{
		"none":            {nil, engine.ErrStateInvalid},
		"an array":        {[]json.RawMessage{[]byte(`[]`)}, engine.ErrStateInvalid},
		"another member":  {[]json.RawMessage{[]byte(`{"agent_policy":{}}`)}, engine.ErrStateInvalid},
		"a second member": {[]json.RawMessage{[]byte(`{"pstate":{},"x":1}`)}, engine.ErrStateInvalid},
		"a duplicate key": {[]json.RawMessage{[]byte(`{"pstate":{},"pstate":{"a":1}}`)}, engine.ErrStateInvalid},
		"no JSON":         {[]json.RawMessage{[]byte(`{`)}, engine.ErrStateInvalid},
		"too many":        {many, engine.ErrStateUncertain},
		"too large":       {[]json.RawMessage{[]byte(`{"pstate":"` + strings.Repeat("x", engine.MaxState) + `"}`)}, engine.ErrStateTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			if err := e.Restore(context.Background(), e.Active(), engine.State{Possible: tt.possible}); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if got := state(t, e); got != `[{"pstate":{}}]` || e.Generation() != 1 {
				t.Errorf("changed to %s", got)
			}
		})
	}
}

func TestObserve(t *testing.T) {
	e := startText(t, patchRules+"No = true\nBoth = {\"ops\": [{\"op\": \"add\", \"path\": \"/pstate/both\", \"value\": input.status}], \"allowed\": true}\n"+
		"Refuses = {\"ops\": [], \"allowed\": false}\nExtra = {\"ops\": [], \"more\": true}\nBare = {\"allowed\": true}")
	for _, tt := range []struct {
		name, entryPoint, input string
		allowed, holds          bool
	}{
		{"undefined", "Seen", `{}`, true, false},
		{"ops", "Seen", `{"status": 3}`, true, true},
		{"ops that do not apply", "Fails", `{}`, false, false},
		{"a boolean", "No", `{}`, false, false},
		{"ops, and allowed", "Both", `{"status": 0}`, true, true},
		{"ops, and not allowed", "Refuses", `{}`, false, false},
		{"allowed, without ops", "Bare", `{}`, false, false},
		{"more than ops and allowed", "Extra", `{}`, false, false},
		{"no such rule", "Nothing", `{}`, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := e.Observe(context.Background(), request(tt.entryPoint, tt.input))
			if err != nil || v.Allowed != tt.allowed || v.Holds() != tt.holds || v.Allowed != (v.Reason == "") {
				t.Fatalf("%+v, %v", v, err)
			}
			if err := v.Commit(); err != nil {
				t.Fatal(err)
			}
		})
	}
	if got := state(t, e); got != `[{"pstate":{"both":0,"seen":3}}]` {
		t.Errorf("got %s", got)
	}
}

// What one policy allowed, another does not take note of.
func TestObserveAfterAnotherPolicy(t *testing.T) {
	e := startText(t, patchRules)
	if err := e.Activate(context.Background(), e.Active(), engine.KeepState); err != nil {
		t.Fatal(err)
	}
	r := request("Seen", `{"status": 3}`)
	r.Generation = 1
	if v, err := e.Observe(context.Background(), r); !errors.Is(err, engine.ErrOtherPolicy) {
		t.Errorf("got %+v, %v", v, err)
	}
	if got := state(t, e); got != `[{"pstate":{}}]` {
		t.Errorf("changed to %s", got)
	}
}
