// SPDX-License-Identifier: Apache-2.0

package prove

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine"
	"portcullis/internal/rulestest"
	"portcullis/rules/policydata"
)

// attempt is a way to show a difference: the start of b's pod up to a request, that request changed, or requests after it.
type attempt struct {
	before    func([]rulestest.Request) []rulestest.Request // changes the start; nil for none
	container string                                        // up to whose creation, "" for the sandbox alone
	pod       func(*rulestest.Pod)                          // another identity of the pod; nil for none
	change    func(input map[string]any)                    // of the last request; nil for none
	then      func(id string) []rulestest.Request           // further requests; nil for none
	leaveOut  func(name string) bool                        // containers of the start to leave out; nil for none
}

// searcher looks for requests that b allows and a denies.
type searcher struct {
	a, b  *Policy
	trail []passed // what both allowed last, as the next sequence often begins so too
}

// passed is a request that both policies allowed, and the states that they came to.
type passed struct {
	rulestest.Request
	a, b engine.State
}

// search tries the attempts of a difference, the plain start of the pod first.
func (s *searcher) search(ctx context.Context, d difference) (*Witness, error) {
	for _, t := range d.attempts {
		requests := s.requests(t)
		if len(requests) == 0 {
			continue
		}
		shown, reason, err := s.shows(ctx, requests)
		if err != nil {
			return nil, err
		}
		if shown > 0 {
			requests, err = s.shrink(ctx, requests[:shown])
			return &Witness{Open: d.Open, Requests: requests, Reason: reason}, err
		}
	}
	return nil, nil
}

// requests are those of an attempt.
func (s *searcher) requests(t attempt) []rulestest.Request {
	e := emulator(s.b.Data)
	if t.pod != nil {
		t.pod(&e.Pod)
	}
	out := startOf(e, t)
	if len(out) == 0 {
		return nil
	}
	if t.before != nil {
		out = t.before(out)
	}
	if t.change != nil {
		t.change(out[len(out)-1].Input)
	}
	out = append(out, t.further()...)
	for i, r := range out {
		out[i] = asJSON(r) // what is shown is what was decided: a nil list would be null there
	}
	return out
}

// further are the requests behind the last of the start, of a container that is started first.
func (t attempt) further() []rulestest.Request {
	if t.then == nil {
		return nil
	}
	then := t.then(rulestest.ID(t.container))
	if t.container == "" {
		return then
	}
	return append([]rulestest.Request{started(rulestest.ID(t.container))}, then...)
}

// startOf is the start of a pod up to the creation of one container: the sandbox, and what that container waits for.
func startOf(e rulestest.Emulator, t attempt) []rulestest.Request {
	out := []rulestest.Request{plain(e.CreateSandbox())}
	if t.container == "" {
		return out
	}
	for _, name := range before(e.Policy, t.container) {
		if t.leaveOut != nil && t.leaveOut(name) {
			continue
		}
		id := rulestest.ID(name)
		for _, r := range e.CopyFiles(name) {
			out = append(out, plain(r))
		}
		out = append(out, plain(e.CreateContainer(name)))
		if name == t.container {
			return out
		}
		out = append(out, started(id))
		if slices.Contains(waiting(e.Policy, name), policydata.Succeeded) {
			out = append(out, succeeded(id))
		}
	}
	return nil
}

// before are the containers that one waits for, and that one.
func before(p *policydata.Policy, name string) []string {
	var out []string
	var visit func(string)
	visit = func(name string) {
		if slices.Contains(out, name) || p.Containers[name] == nil {
			return
		}
		for _, step := range p.Containers[name].After {
			if p.Order == policydata.OrderEnforced {
				visit(step.Container)
			}
		}
		out = append(out, name)
	}
	visit(name)
	return out
}

// emulator asks for the pod of a policy.
func emulator(p *policydata.Policy) rulestest.Emulator {
	return rulestest.Emulator{Policy: p, Pod: rulestest.DefaultPod(p)}
}

func request(kind string, input map[string]any) rulestest.Request {
	return rulestest.Request{Kind: kind, Input: input}
}

func started(id string) rulestest.Request {
	return request("StartContainerRequest", map[string]any{"container_id": id})
}

// succeeded is the answer that a container has ended well.
func succeeded(id string) rulestest.Request {
	return request("WaitProcessResponse", map[string]any{
		"request": map[string]any{"container_id": id, "exec_id": id}, "response": map[string]any{"status": 0},
	})
}

// asJSON is a request in the types of JSON.
func asJSON(r rulestest.Request) rulestest.Request {
	var input map[string]any
	raw, err := json.Marshal(r.Input)
	if err == nil {
		err = json.Unmarshal(raw, &input)
	}
	if err != nil {
		panic(err) // emulated requests are JSON
	}
	return rulestest.Request{Kind: r.Kind, Input: input}
}

// plain is a request in the types of JSON, free to be changed, whose pull repeats no annotations, and without the annotation of a
// runtime that says nothing of the pod: a policy need not take it.
func plain(r rulestest.Request) rulestest.Request {
	r = asJSON(r)
	maps.DeleteFunc(annotations(r.Input), func(key string, value any) bool { return key == cri+"sandbox-cpu-shares" && value == "102" })
	for _, s := range list(r.Input, "storages") {
		if isPull(s) {
			s.(map[string]any)["driver_options"] = []any{}
		}
	}
	return r
}

// shows says after how many of requests b has allowed what a denies, 0 if that does not happen.
func (s *searcher) shows(ctx context.Context, requests []rulestest.Request) (int, string, error) {
	begun, err := s.resume(ctx, requests)
	if err != nil {
		return 0, "", err
	}
	for i, r := range requests {
		if i < begun {
			continue
		}
		allowed, _, err := s.b.decide(ctx, r)
		if err != nil || !allowed {
			return 0, "", err
		}
		allowed, reason, err := s.a.decide(ctx, r)
		if err != nil {
			return 0, "", err
		}
		if !allowed {
			return i + 1, reason, nil
		}
		s.trail = append(s.trail, passed{r, s.a.engine.State(), s.b.engine.State()})
	}
	return 0, "", nil
}

// resume has both policies where the last sequence brought them that begins with the same requests, and says how many these are.
func (s *searcher) resume(ctx context.Context, requests []rulestest.Request) (int, error) {
	n := 0
	for n < min(len(requests), len(s.trail)) && reflect.DeepEqual(requests[n], s.trail[n].Request) {
		n++
	}
	s.trail = s.trail[:n]
	if n == 0 {
		return 0, errors.Join(s.a.reset(ctx), s.b.reset(ctx))
	}
	at := s.trail[n-1]
	return n, errors.Join(s.a.engine.Restore(ctx, s.a.engine.Active(), at.a), s.b.engine.Restore(ctx, s.b.engine.Active(), at.b))
}

// shrink leaves out the requests without which the last one still shows the difference.
func (s *searcher) shrink(ctx context.Context, requests []rulestest.Request) ([]rulestest.Request, error) {
	for size := max(1, (len(requests)-1)/2); ; size /= 2 { // many at a time first, as most can be spared
		for end := len(requests) - 1; end > 0; end -= size {
			fewer := slices.Delete(slices.Clone(requests), max(0, end-size), end)
			shown, _, err := s.shows(ctx, fewer)
			if err != nil {
				return nil, err
			}
			if shown == len(fewer) {
				requests = fewer
			}
		}
		if size <= 1 {
			return requests, nil
		}
	}
}

func (p *Policy) reset(ctx context.Context) error {
	if err := p.ready(ctx); err != nil {
		return err
	}
	return p.engine.Activate(ctx, p.engine.Active(), engine.FreshState)
}

// decide judges a request, or tells the policy of an answer, and goes on as if the agent had carried it out.
func (p *Policy) decide(ctx context.Context, r rulestest.Request) (allowed bool, reason string, err error) {
	value, err := ast.InterfaceToValue(r.Input)
	if err != nil {
		return false, "", fmt.Errorf("decide %s: %w", r.Kind, err)
	}
	judge := p.engine.Judge
	if r.Kind == "WaitProcessResponse" {
		judge = p.engine.Observe
	}
	v, err := judge(ctx, engine.Request{EntryPoint: r.Kind, Input: func(*engine.Policy) (ast.Value, error) { return value, nil }})
	if errors.Is(err, engine.ErrEvaluation) {
		return false, err.Error(), nil // as in the guest, which denies then
	}
	if err != nil {
		return false, "", fmt.Errorf("decide %s: %w", r.Kind, err)
	}
	if !v.Allowed {
		v.Discard()
		return false, v.Reason, nil
	}
	return true, "", v.Commit()
}
