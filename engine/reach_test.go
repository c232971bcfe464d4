// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"testing"
)

// TestReaches asks of each rule whether it may read input.data, and input.process.Env. What is not certain is true.
func TestReaches(t *testing.T) {
	for _, tt := range []struct {
		name, rules string
		data, env   bool
	}{
		{"nothing", `X { true }`, false, false},
		{"another field", `X { input.id == "a" }`, false, false},
		{"the field", `X { input.data == [] }`, true, false},
		{"an element of it", `X { input.data[0] == 1 }`, true, false},
		{"in brackets", `X { input["data"] == [] }`, true, false},
		{"a parent", `X { count(input.process) == 3 }`, false, true},
		{"a sibling", `X { input.process.Args == [] }`, false, false},
		{"a variable key", `X { some k; input[k] == 1 }`, true, true},
		{"a variable key below", `X { some k; input.process[k] == 1 }`, false, true},
		{"a number key", `X { input[0] == 1 }`, false, false},
		{"a computed key", `X { k := concat("", ["da", "ta"]); input[k] == 1 }`, true, true},
		{"a nested reference as key", `X { input[input.data] == 1 }`, true, true},
		{"the whole input", `X { input == {} }`, true, true},
		{"the whole input in a variable", `X { x := input; x.id == "a" }`, true, true},
		{"a part in a variable", `X { p := input.process; p.Args == [] }`, false, true},
		{"walk", `X { walk(input, [["data"], v]); v == 1 }`, true, true},
		{"walk of a part", `X { walk(input.process, [p, v]); v == 1; p == [] }`, false, true},
		{"object.get of input", `X { object.get(input, "data", 1) == 1 }`, true, true},
		{"a helper rule", `X { helper } helper { input.data }`, true, false},
		{"a helper of a helper", `X { a } a { b } b { input.process.Env }`, false, true},
		{"a function with the field as argument", `X { f(input.data) } f(x) { x == [] }`, true, false},
		{"a function that reads by itself", `X { f(1) } f(x) { input.process.Env[x] }`, false, true},
		{"a function with the whole input", `X { f(input) } f(x) { x.id == "a" }`, true, true},
		{"every over it", `X { every d in input.data { d == 1 } }`, true, false},
		{"every with it inside", `X { every d in [1] { input.data[d] } }`, true, false},
		{"some in", `X { some d in input.data; d == 1 }`, true, false},
		{"a comprehension", `X { count([d | d := input.data[_]]) == 1 }`, true, false},
		{"a set comprehension in a call", `X { {d | some d in input.process.Env} == set() }`, false, true},
		{"negation", `X { not input.data }`, true, false},
		{"with input", `X { Y with input as {"id": 1} } Y { input.id == 1 }`, true, true},
		{"with input.id", `X { Y with input.id as 1 } Y { input.id == 1 }`, true, true},
		{"an else branch", `X { input.id == "a" } else = true { input.data }`, true, false},
		{"a helper of an else branch", `X { input.id == "a" } else = true { h } h { input.data }`, true, false},
		{"an else branch of a helper", `X { h } h { input.id == "a" } else = true { input.process.Env }`, false, true},
		{"a default and a second definition", `default X = false
			X { input.id == 1 } X { input.data }`, true, false},
		{"a rule by a variable name", `X { some n; data.agent_policy.helpers[n] } helpers.a { input.data }`, true, false},
		{"a rule head", `X = {"allowed": true, "ops": input.data} { true }`, true, false},
		{"a rule of another entry point", `X { input.id } Y { input.data; input.process.Env }`, false, false},
		{"the reasons rule", `X { input.id } reasons = r { r := {"X": input.data} }`, true, false},
		{"a partial reasons rule", `X { input.id } reasons["X"] = r { r := input.process.Env }`, false, true},
		{"a helper of the reasons", `X { input.id } reasons = h { true } h = "a" { input.data }`, true, false},
		{"prints do not count", `X { input.id; print(input.data, input) }`, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := compile(t, "package agent_policy\nimport future.keywords.in\nimport future.keywords.every\n"+tt.rules)
			if got := p.Reaches("X", "data"); got != tt.data {
				t.Errorf("input.data: %v, want %v", got, tt.data)
			}
			if got := p.Reaches("X", "process", "Env"); got != tt.env {
				t.Errorf("input.process.Env: %v, want %v", got, tt.env)
			}
		})
	}
}

func TestReachesOfAnEntryPointThatIsNotThere(t *testing.T) {
	if compile(t, "package agent_policy\nX { input.data }").Reaches("Y", "data") {
		t.Error("true")
	}
}

func TestReadsState(t *testing.T) {
	for _, tt := range []struct {
		name, rules string
		want        bool
	}{
		{"nothing", `X { input.pstate }`, false},
		{"a rule of the package", `X { h } h { input.a }`, false},
		{"policy_data", `X { policy_data.a } policy_data = {"a": 1}`, false},
		{"a member", `X { data.pstate.a }`, true},
		{"the state", `X { data.pstate == {} }`, true},
		{"an import", `import data.pstate
			X { pstate.a }`, true},
		{"all data by a variable", `X { some k; data[k].a }`, true},
		{"a helper", `X { h } h { not data.pstate.a }`, true},
		{"the reasons rule", `X { input.a } reasons = r { r := {"X": data.pstate.why} }`, true},
		{"with data.pstate", `X { Y with data.pstate as {} } Y { input.a }`, true},
		{"only another entry point", `X { input.a } Y { data.pstate.a }`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := compile(t, "package agent_policy\n"+tt.rules).ReadsState("X"); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
