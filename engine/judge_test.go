// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine"
)

func TestDecisions(t *testing.T) {
	for _, tt := range []struct {
		name, rules string
		allowed     bool
		reason      string // part of it
	}{
		{"true", `X = true`, true, ""},
		{"an object without ops", `X = {"allowed": true}`, true, ""},
		{"an object with empty ops", `X = {"allowed": true, "ops": []}`, true, ""},
		{"an object with ops", `X = {"allowed": true, "ops": [{"op": "add", "path": "/pstate/a", "value": 1}]}`, true, ""},
		{"false", `X = false`, false, "no rule of the policy allows it"},
		{"undefined", `X { input.no }`, false, "no rule of the policy allows it"},
		{"no such rule", `Y = true`, false, "the policy has no rule X"},
		{"a function", `X(a) = true { a }`, false, "no rule X"},
		{"the string true", `X = "true"`, false, "is of type string"},
		{"one", `X = 1`, false, "is of type number"},
		{"null", `X = null`, false, "is of type null"},
		{"an array", `X = [true]`, false, "is of type array"},
		{"a partial set", `X[a] { a := true }`, false, "is of type set"},
		{"an empty object", `X = {}`, false, "lacks allowed"},
		{"ops alone", `X = {"ops": []}`, false, "lacks allowed"},
		{"allowed as a string", `X = {"allowed": "true"}`, false, "allowed is not a boolean"},
		{"ops that are no array", `X = {"allowed": true, "ops": {}}`, false, "ops is not an array"},
		{"null ops", `X = {"allowed": true, "ops": null}`, false, "ops is not an array"},
		{"a further member", `X = {"allowed": true, "note": 1}`, false, "a member besides"},
		{"a member that is no string", `X = {"allowed": true, 1: 1}`, false, "a member besides"},
		{"denied with ops", `X = {"allowed": false, "ops": [{"op": "add", "path": "/pstate/a", "value": 1}]}`, false, "no rule"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := startText(t, "package agent_policy\n"+tt.rules)
			v := judge(t, e, "X", `{}`)
			if v.Allowed != tt.allowed || !strings.Contains(v.Reason, tt.reason) || (v.Reason == "") != tt.allowed {
				t.Errorf("got %v %q", v.Allowed, v.Reason)
			}
			if v.Holds() != (tt.name == "an object with ops") {
				t.Errorf("holds %v", v.Holds())
			}
			v.Discard()
		})
	}
}

// A builtin that fails denies, as it does in kata-agent's engine: an undefined expression would be true behind "not".
func TestAFailingBuiltinDenies(t *testing.T) {
	for _, rules := range []string{
		`X { to_number("a") == 1 }`,
		`X { not to_number("a") }`,
		`X { not contains(object.get(input, "a", null), "b") }`,
		`X { to_number("a") == 1 } X { true }`,
		`default X = true
X = false { to_number("a") == 1 }`,
	} {
		e := startText(t, "package agent_policy\n"+rules)
		if v, err := e.Judge(context.Background(), request("X", `{}`)); !errors.Is(err, engine.ErrEvaluation) {
			t.Errorf("%s: %+v, %v", rules, v, err)
		}
	}
}

// endless takes longer than any deadline: ten nested loops over a hundred elements.
const endless = `X { l := input.l; count([1 | l[a]; l[b]; l[c]; l[d]; l[e]; l[f]; l[g]; l[h]; l[i]; l[j]; a+b+c+d+e+f+g+h+i+j == -1]) == 1 }`

func listInput(n int) string { return `{"l": [` + strings.Repeat("1,", n-1) + `1]}` }

func TestWhatCannotBeDecidedIsAnError(t *testing.T) {
	blocked := make(chan struct{})
	t.Cleanup(func() { close(blocked) })
	broken := errors.New("broken")
	list := request("X", listInput(100))
	for _, tt := range []struct {
		name, rules string
		input       func(*engine.Policy) (ast.Value, error)
		want        error
	}{
		{"an evaluation without end", endless, list.Input, engine.ErrDeadline},
		{"rules that contradict each other", `X = true { input.l } X = false { input.l }`, list.Input, engine.ErrEvaluation},
		{"an input that cannot be built", `X = true`, func(*engine.Policy) (ast.Value, error) { return nil, broken }, broken},
		{"a panic", `X = true`, func(*engine.Policy) (ast.Value, error) { panic("at the disco") }, engine.ErrPanic},
		{"a step that cannot be cancelled", `X = true`, func(*engine.Policy) (ast.Value, error) { <-blocked; return nil, nil }, engine.ErrDeadline},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := start(t, compile(t, "package agent_policy\nOK = true\n"+tt.rules), engine.Options{Timeout: 500 * time.Millisecond})
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			v, err := e.Judge(ctx, engine.Request{EntryPoint: "X", Input: tt.input})
			if !errors.Is(err, tt.want) || v != nil {
				t.Errorf("got %v, %v, want %v", v, err, tt.want)
			}
			if !judge(t, e, "OK", `{}`).Allowed {
				t.Error("the next request is denied")
			}
		})
	}
}

func TestJudgeEndsWithItsContext(t *testing.T) {
	e := start(t, compile(t, "package agent_policy\n"+endless), engine.Options{Workers: 1, Timeout: time.Minute})
	ctx, cancel := context.WithCancel(context.Background())
	errs := make(chan error, 2)
	for range cap(errs) { // one is evaluated, one waits for the worker
		go func() {
			_, err := e.Judge(ctx, request("X", listInput(100)))
			errs <- err
		}()
	}
	time.AfterFunc(20*time.Millisecond, cancel)
	for range cap(errs) {
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
}

func TestWithoutPolicyAndAfterClose(t *testing.T) {
	e := start(t, nil, engine.Options{})
	if _, err := e.Judge(context.Background(), engine.Request{EntryPoint: "X"}); !errors.Is(err, engine.ErrNoPolicy) {
		t.Errorf("judge: %v", err)
	}
	if _, err := e.Observe(context.Background(), engine.Request{EntryPoint: "X"}); !errors.Is(err, engine.ErrNoPolicy) {
		t.Errorf("observe: %v", err)
	}
	if err := e.Activate(context.Background(), compile(t, "package agent_policy\nX = true"), engine.FreshState); err != nil {
		t.Fatal(err)
	}
	if v := judge(t, e, "X", `{}`); !v.Allowed || v.Generation != 1 || v.Policy != e.Active() {
		t.Errorf("got %+v", v)
	}
	e.Close()
	if _, err := e.Judge(context.Background(), engine.Request{EntryPoint: "X"}); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestReasons(t *testing.T) {
	const deny = "package agent_policy\nimport future.keywords\ndefault X = false\n"
	for _, tt := range []struct{ name, rules, want string }{
		{"a string", `reasons = "because"`, "because"},
		{"a set", `reasons = {"b", "a"}`, "a; b"},
		{"a partial set", `reasons[r] { r := "because" }`, "because"},
		{"an array, in its order", `reasons = ["b", "a"]`, "b; a"},
		{"an object by entry point", `reasons = {"X": "mine", "Y": "other"}`, "mine"},
		{"an object with a set", `reasons = {"X": {"b", "a"}}`, "a; b"},
		{"a partial object", `reasons["X"] = r { r := "because" }`, "because"},
		{"a reference head", `reasons.X = "because"`, "because"},
		{"a reference head that is a set", `reasons.X contains r if { r := "because" }`, "because"},
		{"of the input", `reasons.X = r { r := sprintf("no %s here", [input.a]) }`, "no one here"},
		{"only of another entry point", `reasons = {"Y": "other"}`, "no rule of the policy allows it"},
		{"a number", `reasons = 1`, "no rule of the policy allows it"},
		{"strings among others", `reasons = ["a", 1, null, "b"]`, "a; b"},
		{"conflicting reasons", `reasons = "a" { input.a } reasons = "b" { input.a }`, "no rule of the policy allows it"},
		{"one line", `reasons = "a\nb\tc\u0000d\u2028e\u001b[0mf"`, "a b c d e [0mf"},
		{"prints", `X { print("got", input.a); input.a == "two" } X { print("second"); false }`, "got one; second"},
		{"reasons go before prints", `X { print("printed"); false } reasons = "because"`, "because"},
		{"prints if there are no reasons", `X { print("printed"); false } reasons = {"Y": "a"}`, "printed"},
		{"prints of a helper", `X { h } h { print("deep"); input.no }`, "deep"},
		{"a reason without end", `reasons = "a" { l := input.l; count([1 | l[a]; l[b]; l[c]; l[d]; l[e]; l[f]; a+b+c+d+e+f == -1]) == 1 }`, "no rule of the policy allows it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opts := engine.Options{Timeout: time.Minute}
			if tt.name == "a reason without end" {
				opts.Timeout = 300 * time.Millisecond
			}
			e := start(t, compile(t, deny+tt.rules), opts)
			v := judge(t, e, "X", `{"a": "one", "l": [`+strings.Repeat("1,", 99)+`1]}`)
			if v.Allowed || v.Reason != tt.want {
				t.Errorf("got %v %q, want %q", v.Allowed, v.Reason, tt.want)
			}
		})
	}
}

func TestLongReasonsAreCut(t *testing.T) {
	long := strings.Repeat("é", 2000)
	for name, rules := range map[string]string{
		"reasons":         `reasons = "` + long + `"`,
		"one long print":  `X { print("x` + long + `END"); false }`,
		"many prints":     `X { l := input.l; l[i]; print("ééé", i); i == 1000 }`,
		"a long rule":     `reasons = {x | x := sprintf("%05d", [input.l[_]])}`,
		"an odd boundary": `reasons = "x` + long + `"`,
	} {
		t.Run(name, func(t *testing.T) {
			e := startText(t, "package agent_policy\ndefault X = false\n"+rules)
			got := judge(t, e, "X", listInput(500)).Reason
			if len(got) > engine.MaxReason || !utf8.ValidString(got) || got == "" {
				t.Errorf("%d bytes: %q", len(got), got)
			}
			if name == "one long print" && !strings.HasSuffix(got, "END") || name == "many prints" && !strings.HasSuffix(got, "499") {
				t.Errorf("not the tail: %q", got[len(got)-20:])
			}
		})
	}
}

func TestAllowRequestsFailing(t *testing.T) {
	const rules = "package agent_policy\ndefault X = false\nY = true\nBad = 1\nConflict = true { input.l } Conflict = false { input.l }\n"
	for _, tt := range []struct {
		name, rule string
		want       bool
	}{
		{"absent", ``, false},
		{"true", `AllowRequestsFailingPolicy := true`, true},
		{"false", `AllowRequestsFailingPolicy := false`, false},
		{"the string true", `AllowRequestsFailingPolicy := "true"`, false},
		{"an object", `AllowRequestsFailingPolicy := {"allowed": true}`, false},
		{"undefined", `AllowRequestsFailingPolicy { input.x }`, false},
		{"fresh state", `AllowRequestsFailingPolicy { data.pstate == {} }`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := startText(t, rules+tt.rule)
			if got := e.Active().AllowsFailing(); got != tt.want {
				t.Fatalf("AllowsFailing %v", got)
			}
			for _, ep := range []string{"X", "Bad", "Missing"} {
				if v := judge(t, e, ep, `{}`); v.Allowed != tt.want || v.Waived != tt.want || v.Reason == "" {
					t.Errorf("%s: %+v", ep, v)
				}
			}
			if v := judge(t, e, "Y", `{}`); !v.Allowed || v.Waived {
				t.Errorf("Y: %+v", v)
			}
			v, err := e.Judge(context.Background(), request("Conflict", `{"l": 1}`))
			if (err == nil) != tt.want || tt.want && !v.Waived {
				t.Errorf("Conflict: %+v, %v", v, err)
			}
		})
	}
}

func TestAWaiverWithoutEndIsNone(t *testing.T) {
	c, err := engine.NewCompiler(engine.CompilerOptions{Timeout: 30 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	rule := strings.NewReplacer("X", "AllowRequestsFailingPolicy", "input.l", "["+strings.Repeat("1,", 99)+"1]", "== 1", "== 0").Replace(endless)
	p, err := c.Compile(context.Background(), []byte("package agent_policy\n"+rule))
	if err != nil || p.AllowsFailing() {
		t.Errorf("got %v", err)
	}
}

func TestTheWaiverIsConstantAndEndsWithItsPolicy(t *testing.T) {
	e := startText(t, `package agent_policy
		default X = false
		AllowRequestsFailingPolicy { not data.pstate.a }
		Set = {"allowed": true, "ops": [{"op": "add", "path": "/pstate/a", "value": 1}]}`)
	if err := judge(t, e, "Set", `{}`).Commit(); err != nil {
		t.Fatal(err)
	}
	if v := judge(t, e, "X", `{}`); !v.Waived {
		t.Error("the waiver changed with the state")
	}
	if err := e.Activate(context.Background(), compile(t, "package agent_policy\ndefault X = false"), engine.KeepState); err != nil {
		t.Fatal(err)
	}
	if v := judge(t, e, "X", `{}`); v.Allowed {
		t.Error("the waiver outlived its policy")
	}
}

func TestCache(t *testing.T) {
	const rules = `package agent_policy
		Plain { input.a == 1 }
		Reads { not data.pstate.a }
		Set = {"allowed": true, "ops": [{"op": "add", "path": "/pstate/a", "value": 1}]}`
	e := startText(t, rules)
	ask := func(entryPoint string, key byte, input string) *engine.Verdict {
		r := request(entryPoint, input)
		r.Key[0] = key
		v, err := e.Judge(context.Background(), r)
		if err != nil {
			t.Fatal(err)
		}
		v.Discard()
		return v
	}
	check := func(what string, v *engine.Verdict, allowed, cached bool) {
		t.Helper()
		if v.Allowed != allowed || v.Cached != cached {
			t.Errorf("%s: allowed %v, cached %v", what, v.Allowed, v.Cached)
		}
	}
	check("first", ask("Plain", 1, `{"a":1}`), true, false)
	check("again", ask("Plain", 1, `{"a":1}`), true, true)
	check("another key", ask("Plain", 2, `{"a":2}`), false, false)
	check("a denial again", ask("Plain", 2, `{"a":2}`), false, true)
	check("without key", ask("Plain", 0, `{"a":1}`), true, false)
	check("without key again", ask("Plain", 0, `{"a":2}`), false, false)
	check("another entry point", ask("Reads", 1, `{}`), true, false)
	check("a reader of state", ask("Reads", 1, `{}`), true, false)
	check("ops", ask("Set", 1, `{}`), true, false)
	check("ops again", ask("Set", 1, `{}`), true, false)
	if err := e.Activate(context.Background(), compile(t, strings.Replace(rules, "== 1", "== 2", 1)), engine.KeepState); err != nil {
		t.Fatal(err)
	}
	check("another policy", ask("Plain", 1, `{"a":1}`), false, false)
}

func TestTheCacheIsBounded(t *testing.T) {
	e := start(t, compile(t, "package agent_policy\nX = true"), engine.Options{Cache: 8})
	hits := 0
	for round := range 2 {
		for key := range byte(100) {
			r := engine.Request{EntryPoint: "X"}
			r.Key[0], r.Key[1] = key, 1
			v, err := e.Judge(context.Background(), r)
			if err != nil {
				t.Fatal(err)
			}
			if round == 1 && v.Cached {
				hits++
			}
		}
	}
	if hits > 8 {
		t.Errorf("%d of 100 requests remembered, want at most 8", hits)
	}
}

// A policy that was replaced is forgotten, and so is what it was compiled to: remembered decisions keep none of it.
func TestReplacedPoliciesAreForgotten(t *testing.T) {
	const policies = 8
	var gone atomic.Int32
	e := engine.New(nil, engine.Options{})
	defer e.Close()
	for i := range policies {
		p := compile(t, fmt.Sprintf("package agent_policy\n\ndefault X := false\n\ny := %d", i))
		runtime.SetFinalizer(p, func(*engine.Policy) { gone.Add(1) })
		if err := e.Activate(t.Context(), p, engine.FreshState); err != nil {
			t.Fatal(err)
		}
		if v, err := e.Judge(t.Context(), engine.Request{EntryPoint: "X", Key: [sha256.Size]byte{1}}); err != nil || v.Allowed {
			t.Fatal(v, err)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); gone.Load() < policies-1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d policies that were replaced are forgotten", gone.Load(), policies-1)
		}
		runtime.GC()
	}
}
