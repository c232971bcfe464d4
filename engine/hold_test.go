// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine"
)

func TestAHoldIsResolvedOnce(t *testing.T) {
	const set = `{"ops":[{"op":"add","path":"/pstate/a","value":1}]}`
	commit := func(v *engine.Verdict) error { return v.Commit() }
	discard := func(v *engine.Verdict) error { v.Discard(); return nil }
	doubt := func(v *engine.Verdict) error { v.Doubt(); return nil }
	const before, after, both = `[{"pstate":{}}]`, `[{"pstate":{"a":1}}]`, `[{"pstate":{}},{"pstate":{"a":1}}]`
	for _, tt := range []struct {
		name          string
		first, second func(*engine.Verdict) error
		want          string
		err           error // of the second call
	}{
		{"commit", commit, nil, after, nil},
		{"commit twice", commit, commit, after, nil},
		{"commit, then discard", commit, discard, after, nil},
		{"commit, then doubt", commit, doubt, after, nil},
		{"discard", discard, nil, before, nil},
		{"discard, then commit", discard, commit, before, engine.ErrResolved},
		{"discard twice", discard, discard, before, nil},
		{"doubt", doubt, nil, both, nil},
		{"doubt, then commit", doubt, commit, both, engine.ErrResolved},
		{"doubt, then discard", doubt, discard, both, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := startText(t, patchRules)
			v := judge(t, e, "Patch", set)
			if err := tt.first(v); err != nil {
				t.Fatal(err)
			}
			if tt.second != nil {
				if err := tt.second(v); !errors.Is(err, tt.err) {
					t.Errorf("second call: %v, want %v", err, tt.err)
				}
			}
			if got := state(t, e); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			next := judge(t, e, "Patch", set) // the state is free again
			next.Discard()
		})
	}
}

// What is recorded is never behind what is current: each state is recorded before, both while a request is under way, and a state
// that cannot be recorded does not become current unless "both" is recorded already.
func TestTheRecordIsAheadOfTheState(t *testing.T) {
	const before, after, both = `[{"pstate":{}}]`, `[{"pstate":{"a":1}}]`, `[{"pstate":{}},{"pstate":{"a":1}}]`
	commit := func(v *engine.Verdict) error { return v.Commit() }
	discard := func(v *engine.Verdict) error { v.Discard(); return nil }
	doubt := func(v *engine.Verdict) error { v.Doubt(); return nil }
	for _, tt := range []struct {
		name    string
		begin   bool
		resolve func(*engine.Verdict) error
		fails   int    // the first record that fails, counted from 1; 0 for none
		records string // in order
		current string // in the end
		err     error
	}{
		{"sent, and it succeeded", true, commit, 0, both + after, after, nil},
		{"sent, and it failed", true, discard, 0, both + before, before, nil},
		{"sent, and nobody knows", true, doubt, 0, both, both, nil},
		{"done at once", false, commit, 0, after, after, nil},
		{"not sent", false, discard, 0, "", before, nil},
		{"no room at the beginning", true, discard, 1, both, before, engine.ErrRecord},
		{"no room when it succeeded", true, commit, 2, both + after, after, nil},
		{"no room when it failed", true, discard, 2, both + before, before, nil},
		{"no room, done at once", false, commit, 1, after, before, engine.ErrRecord},
		{"no room, and nobody knows", false, doubt, 1, both, before, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := startText(t, patchRules)
			records, n := "", 0
			e.RecordTo(func(s engine.State) error {
				if got := state(t, e); got != before {
					t.Errorf("the state is %s before its record", got)
				}
				text, err := json.Marshal(s.Possible)
				if err != nil {
					t.Fatal(err)
				}
				records += string(text)
				if n++; tt.fails != 0 && n >= tt.fails {
					return errors.New("no room")
				}
				return nil
			})
			v := judge(t, e, "Patch", `{"ops":[{"op":"add","path":"/pstate/a","value":1}]}`)
			var err error
			if tt.begin {
				err = v.Begin()
			}
			if resolved := tt.resolve(v); err == nil {
				err = resolved
			}
			if !errors.Is(err, tt.err) || err != nil && tt.err == nil {
				t.Errorf("got %v, want %v", err, tt.err)
			}
			if got := state(t, e); records != tt.records || got != tt.current {
				t.Errorf("recorded %s, want %s; state %s, want %s", records, tt.records, got, tt.current)
			}
			judge(t, e, "Fixed", `{}`) // the state is free again
		})
	}
}

func TestAVerdictWithoutHoldNeedsNoResolution(t *testing.T) {
	v := judge(t, startText(t, patchRules), "Fixed", `{}`)
	v.Discard()
	v.Doubt()
	if err := v.Commit(); err != nil || v.Begin() != nil || v.Holds() {
		t.Errorf("%v, %+v", err, v)
	}
}

func TestAfterADoubtOnlyWhatIsAllowedInEveryState(t *testing.T) {
	e := startText(t, patchRules)
	restore(t, e, `{"a":1}`, `{"a":2}`)
	if !judge(t, e, "OneOf", `{}`).Allowed {
		t.Error("allowed in both states, but denied")
	}
	if judge(t, e, "IsOne", `{}`).Allowed {
		t.Error("denied in one state, but allowed")
	}
	v := judge(t, e, "Put", `{}`) // its ops differ from state to state
	if err := v.Commit(); err != nil {
		t.Fatal(err)
	}
	if got, want := state(t, e), `[{"pstate":{"a":1,"b":1}},{"pstate":{"a":2,"b":2}}]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	v = judge(t, e, "Patch", `{"ops":[{"op":"test","path":"/pstate/a","value":1}]}`)
	if v.Allowed || v.Holds() {
		t.Error("ops that fail in one state were allowed")
	}
	v = judge(t, e, "Patch", `{"ops":[{"op":"add","path":"/pstate","value":{"a":1}}]}`)
	if err := v.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := state(t, e); got != `[{"pstate":{"a":1}}]` {
		t.Errorf("states that have become equal are still two: %s", got)
	}
}

func TestADoubtfulCreateIsNotRepeated(t *testing.T) {
	e := startText(t, podRules+podData(1))
	judge(t, e, "CreateContainerRequest", createInput("a", "c0")).Doubt()
	if judge(t, e, "CreateContainerRequest", createInput("a", "c0")).Allowed {
		t.Error("a second copy is allowed")
	}
	if judge(t, e, "StartContainerRequest", `{"container_id":"a"}`).Allowed {
		t.Error("a container that may not exist can be started")
	}
	v := judge(t, e, "CreateContainerRequest", createInput("b", "c0"))
	if !v.Allowed {
		t.Error("another container is denied:", v.Reason)
	}
	v.Discard()
}

func TestDoubtsAreBounded(t *testing.T) {
	e := startText(t, patchRules)
	grow := func(key string) *engine.Verdict { return judge(t, e, "Grow", fmt.Sprintf(`{"key":%q}`, key)) }
	for _, key := range []string{"a", "b", "c"} { // 2, 4, 8 states
		v := grow(key)
		if !v.Allowed {
			t.Fatal(v.Reason)
		}
		v.Doubt()
	}
	v := grow("d")
	if v.Allowed || v.Holds() || !strings.HasPrefix(v.Reason, "state-uncertain") {
		t.Errorf("%+v", v)
	}
	if !judge(t, e, "Fixed", `{}`).Allowed {
		t.Error("requests without ops are denied")
	}
	if n := len(e.State().Possible); n != engine.MaxStates {
		t.Errorf("%d states", n)
	}
}

func TestReadersDoNotWaitForAHolder(t *testing.T) {
	e := startText(t, podRules+podData(1))
	held := judge(t, e, "CreateContainerRequest", createInput("a", "c0"))
	waiting := make(chan *engine.Verdict)
	go func() { waiting <- judge(t, e, "CreateContainerRequest", createInput("b", "c0")) }()
	for range 100 {
		if !judge(t, e, "ExecProcessRequest", execInput).Allowed || judge(t, e, "StartContainerRequest", `{"container_id":"a"}`).Allowed {
			t.Fatal("wrong decision")
		}
	}
	if judge(t, e, "CreateContainerRequest", createInput("x", "other")).Allowed {
		t.Error("a denial by the same rule is allowed")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := e.Judge(ctx, request("CreateContainerRequest", createInput("c", "c0"))); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for the holder ended with %v", err)
	}
	if err := e.Activate(ctx, e.Active(), engine.FreshState); !errors.Is(err, context.DeadlineExceeded) || e.Generation() != 1 {
		t.Errorf("an activation beside a holder: %v", err)
	}
	if err := held.Commit(); err != nil {
		t.Fatal(err)
	}
	second := <-waiting
	if err := second.Commit(); err != nil || !second.Allowed {
		t.Fatal(err, second.Reason)
	}
	if got := state(t, e); got != `[{"pstate":{"containers":{"a":"c0","b":"c0"}}}]` {
		t.Errorf("got %s", got)
	}
}

// TestAWaiterIsJudgedInTheStateItGets: what was allowed when it began to wait may be denied by then, or by another policy.
func TestAWaiterIsJudgedInTheStateItGets(t *testing.T) {
	e := startText(t, patchRules)
	held := judge(t, e, "PutOnce", `{}`)
	waiting := make(chan *engine.Verdict)
	go func() { waiting <- judge(t, e, "PutOnce", `{}`) }()
	time.Sleep(10 * time.Millisecond) // let it wait; the result must be the same if it has not begun
	if err := held.Commit(); err != nil {
		t.Fatal(err)
	}
	if v := <-waiting; v.Allowed || v.Holds() {
		t.Error("the second of two is allowed")
	}
}

// TestAQuestionIsDecidedHoweverOftenTheStateChanges while it is judged: in the end it waits until the state stands.
func TestAQuestionIsDecidedHoweverOftenTheStateChanges(t *testing.T) {
	e := start(t, compile(t, podRules+podData(1)), engine.Options{Timeout: time.Minute})
	r := request("StartContainerRequest", `{"container_id":"none"}`)
	build, asked := r.Input, 0
	r.Input = func(p *engine.Policy) (ast.Value, error) {
		if asked++; asked <= 8 {
			v := judge(t, e, "CreateContainerRequest", createInput(fmt.Sprintf("id%d", asked), "c0"))
			if err := v.Commit(); err != nil {
				return nil, err
			}
		}
		return build(p)
	}
	if v, err := e.Judge(context.Background(), r); err != nil || v.Allowed || asked != 9 {
		t.Errorf("%+v, %v, asked %d times", v, err, asked)
	}
	if v := judge(t, e, "StartContainerRequest", `{"container_id":"id1"}`); !v.Allowed {
		t.Error("nobody gave the state back")
	}
}

func TestActivationWaitsForTheHolder(t *testing.T) {
	e := startText(t, patchRules)
	held := judge(t, e, "PutOnce", `{}`)
	next := compile(t, "package agent_policy\nIsOne = true")
	done := make(chan error)
	go func() { done <- e.Activate(context.Background(), next, engine.FreshState) }()
	select {
	case <-done:
		t.Fatal("activated beside a holder")
	case <-time.After(10 * time.Millisecond):
	}
	if v := judge(t, e, "Fixed", `{}`); !v.Allowed || v.Policy == next {
		t.Error("the old policy does not serve until the new one is active")
	}
	if err := held.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := state(t, e); e.Active() != next || got != `[{"pstate":{}}]` || e.Generation() != 2 {
		t.Errorf("state %s", got)
	}
}

func TestActivationKeepsTheStateIfTold(t *testing.T) {
	e := startText(t, patchRules)
	restore(t, e, `{"a":1}`)
	for _, tt := range []struct {
		change engine.StateChange
		want   bool
	}{{engine.KeepState, true}, {engine.FreshState, false}} {
		if err := e.Activate(context.Background(), compile(t, patchRules), tt.change); err != nil {
			t.Fatal(err)
		}
		if judge(t, e, "IsOne", `{}`).Allowed != tt.want {
			t.Errorf("change %v", tt.change)
		}
	}
}

// TestJudgementsUnderWayKeepTheirPolicy swaps the policy while a request builds its input.
func TestJudgementsUnderWayKeepTheirPolicy(t *testing.T) {
	e := startText(t, "package agent_policy\nX = true")
	old := e.Active()
	r := request("X", `{}`)
	build := r.Input
	r.Input = func(p *engine.Policy) (v ast.Value, err error) {
		if err := e.Activate(context.Background(), compile(t, "package agent_policy\nX = false"), engine.FreshState); err != nil {
			return nil, err
		}
		return build(p)
	}
	v, err := e.Judge(context.Background(), r)
	if err != nil || !v.Allowed || v.Policy != old || v.Generation != 1 {
		t.Errorf("%+v, %v", v, err)
	}
	if judge(t, e, "X", `{}`).Allowed {
		t.Error("the next request is judged by the old policy")
	}
}

// TestAThousandMixedRequests creates each container once among readers, reloads and doubts, and loses none.
func TestAThousandMixedRequests(t *testing.T) {
	e := start(t, compile(t, podRules+podData(4)), engine.Options{Timeout: time.Minute})
	var wg sync.WaitGroup
	var created atomic.Int64
	for i := range 1000 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			var r engine.Request
			switch i % 5 {
			case 0:
				r = request("CreateContainerRequest", createInput(fmt.Sprintf("id%d", i/10), "c1"))
			case 1:
				r = request("StartContainerRequest", fmt.Sprintf(`{"container_id":"id%d"}`, i/10))
			default:
				r = request("ExecProcessRequest", execInput)
				r.Key[0] = byte(i % 3)
			}
			v, err := e.Judge(ctx, r)
			switch {
			case err != nil:
				t.Error(err)
			case i%5 > 1 && !v.Allowed:
				t.Error("exec denied:", v.Reason)
			case v.Holds():
				created.Add(1)
				if err := v.Commit(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if created.Load() != 100 || strings.Count(state(t, e), `"c1"`) != 100 {
		t.Errorf("%d of 100 containers created, state %s", created.Load(), state(t, e))
	}
}

// TestPolicyDataIsReadConcurrently ranges over the same data from many goroutines, for the race detector.
func TestPolicyDataIsReadConcurrently(t *testing.T) {
	e := startText(t, `package agent_policy
		X { some n; c := policy_data.containers[n]; count(c.env) == 10; {e | e := c.env[_]} == {e | e := policy_data.containers.c0.env[_]}; sort(c.env) == c.env }
		`+podData(5))
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			if !judge(t, e, "X", `{}`).Allowed {
				t.Error("denied")
			}
		})
	}
	wg.Wait()
}
