// SPDX-License-Identifier: Apache-2.0

package prove_test

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine"
	"portcullis/rules"
	"portcullis/rules/policydata"
)

// decider is one policy in the guest's engine, prepared once. It keeps states apart by number, 0 is the fresh one, and remembers
// what it said to requests that several pairs ask.
type decider struct {
	ctx    context.Context
	data   *policydata.Policy
	engine *engine.Engine
	policy *engine.Policy
	at     int // state of the engine
	states []string
	number map[string]int
	said   map[asked]answer
}

type asked struct {
	state int
	step  uint64
	guess bool
}

type answer struct {
	allowed bool
	after   int // state
}

func newDecider(ctx context.Context, compiler *engine.Compiler, p *policydata.Policy) (*decider, error) {
	text, err := p.Compact(rules.Text())
	if err != nil {
		return nil, err
	}
	policy, err := compiler.Compile(ctx, text)
	if err != nil {
		return nil, err
	}
	d := &decider{ctx: ctx, data: p, engine: engine.New(policy, engine.Options{Cache: -1, Timeout: time.Minute, Workers: 1}), policy: policy,
		number: map[string]int{}, said: map[asked]answer{}}
	d.at = d.current()
	return d, nil
}

// current is the number of the engine's state.
func (d *decider) current() int {
	text := string(d.engine.State().Possible[0])
	n, ok := d.number[text]
	if !ok {
		n = len(d.states)
		d.states, d.number[text] = append(d.states, text), n
	}
	return n
}

// guess decides a request that does not happen, as ask does but for a builtin that fails: that is undefined here, and denies
// there. What is denied here is denied there too. It does not look for the reason of a denial, which takes longer than the
// decision.
func (d *decider) guess(state int, s *step) (answer, error) {
	return d.remembered(asked{state, s.id, true}, s, func() (answer, error) {
		if err := d.enter(state); err != nil {
			return answer{false, state}, err
		}
		value, _, err := d.engine.Query(d.ctx, []string{s.kind}, s.value)
		if errors.Is(err, engine.ErrEvaluation) {
			err = nil // as in the guest
		}
		return answer{err == nil && allows(value), state}, err
	})
}

// ask decides a request in a state as the guest does, and has it happen if that is asked for.
func (d *decider) ask(state int, s *step) (answer, error) {
	return d.remembered(asked{state, s.id, false}, s, func() (answer, error) { return d.judge(state, s) })
}

func (d *decider) remembered(key asked, s *step, decide func() (answer, error)) (answer, error) {
	if a, ok := d.said[key]; ok {
		return a, nil
	}
	a, err := decide()
	if s.common || s.carry {
		d.said[key] = a
	}
	return a, err
}

// enter has the engine in a state.
func (d *decider) enter(state int) error {
	if d.at == state {
		return nil
	}
	d.at = state
	return d.engine.Restore(d.ctx, d.policy, engine.State{Possible: []json.RawMessage{json.RawMessage(d.states[state])}})
}

func (d *decider) judge(state int, s *step) (answer, error) {
	denied := answer{false, state}
	if err := d.enter(state); err != nil {
		return denied, err
	}
	v, err := d.engine.Judge(d.ctx, engine.Request{EntryPoint: s.kind, Input: func(*engine.Policy) (ast.Value, error) { return s.value, nil }})
	if errors.Is(err, engine.ErrEvaluation) {
		return denied, nil // as in the guest
	}
	if err != nil {
		return denied, err
	}
	if !v.Allowed || !s.carry {
		v.Discard()
		return answer{v.Allowed, state}, nil
	}
	if err := v.Commit(); err != nil {
		return denied, err
	}
	d.at = d.current()
	return answer{true, d.at}, nil
}

// allows reads a decision: true, or an object with allowed that is true.
func allows(v ast.Value) bool {
	if o, ok := v.(ast.Object); ok {
		if t := o.Get(ast.StringTerm("allowed")); t != nil {
			v = t.Value
		}
	}
	return v != nil && v.Compare(ast.Boolean(true)) == 0
}
