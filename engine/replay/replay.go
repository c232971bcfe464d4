// SPDX-License-Identifier: Apache-2.0

// Package replay judges the requests of a recording by a policy as the guest would have: what the agent refused does not change the
// policy's state, and where a recording does not say what a decision depends on, the decision is Unknown and never a denial.
package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine"
	"portcullis/engine/trace"
)

// Outcome is what a policy makes of a recorded request.
type Outcome int

// Values of Outcome.
const (
	Denied Outcome = iota
	Allowed
	Unknown // allowed or denied, by what the recording does not hold
)

// Decision is the outcome with its reason.
type Decision struct {
	Outcome Outcome
	Reason  string          // of a denial, or of an Unknown that is one unless what is Missing is otherwise
	Missing string          // what the recording would have to hold for an Unknown to be known
	State   json.RawMessage // the policy's state that the request was judged in
	Booted  bool            // the request is the first of another guest, which has just started
}

// Session judges the requests of one recording in order. It is the only user of its engine.
type Session struct {
	engine  *engine.Engine
	history []step // what has changed the state, the latest last
	digests []string
	waits   waits
}

// New starts a session in the state that the engine is in.
func New(e *engine.Engine) *Session { return &Session{engine: e} }

// Reset begins again, as a guest that has just started.
func (s *Session) Reset(ctx context.Context) error {
	s.history, s.waits = nil, waits{}
	return s.engine.Activate(ctx, s.engine.Active(), engine.FreshState)
}

// step is a request that changed the state.
type step struct {
	before engine.State
	record trace.Record
	input  ast.Value
}

const (
	// maxHistory is how many steps are remembered.
	maxHistory = 64
	// maxRefused is how many steps back it is looked for one that the agent may have refused.
	maxRefused = 8
)

// Input is a recorded request as a policy sees it.
func Input(record trace.Record) (ast.Value, error) {
	input, err := ast.ValueFromReader(bytes.NewReader(record.Request))
	if err != nil {
		return nil, fmt.Errorf("line %d: request of %s: %w", record.Line, record.Kind, err)
	}
	return input, nil
}

// Judge decides one request. An answer that the policy was shown (trace.Record.Observed) is taken note of, and allowed.
func (s *Session) Judge(ctx context.Context, record trace.Record) (Decision, error) {
	input, err := Input(record)
	if err != nil {
		return Decision{}, err
	}
	if record.Kind == copyFile {
		input = withContents(input)
	}
	before := s.engine.State()
	d, err := s.once(ctx, record, input)
	s.waits.take(record, d.Outcome == Allowed)
	if err != nil || d.Outcome != Denied || record.Allowed != nil && !*record.Allowed { // what was denied then, too, is no riddle
		return d, err
	}
	if record.Kind == createSandbox && record.Allowed != nil {
		return s.booted(ctx, d, step{before, record, input})
	}
	if known, err := s.knowsContents(ctx, record, input); err != nil {
		return d, err
	} else if !known {
		d.Outcome, d.Missing = Unknown, "the file's contents"
		return d, nil
	}
	if d, err = s.ended(ctx, d, step{before, record, input}); err != nil || d.Outcome != Denied {
		return d, err
	}
	return s.otherwise(ctx, d, step{before, record, input})
}

const createSandbox = "CreateSandboxRequest"

// booted looks whether a sandbox that was allowed is that of another guest: a guest has one, and a recording may hold what
// several were asked, one after the other. The session then goes on in that guest.
func (s *Session) booted(ctx context.Context, denied Decision, now step) (Decision, error) {
	history := s.history
	if err := s.Reset(ctx); err != nil {
		return denied, err
	}
	d, err := s.once(ctx, now.record, now.input)
	if err != nil || d.Outcome == Allowed {
		d.Booted = true
		return d, err
	}
	s.history = history
	return denied, s.restore(ctx, now.before)
}

// once judges in the state as it is, and lets the state follow what the agent answered.
func (s *Session) once(ctx context.Context, record trace.Record, input ast.Value) (Decision, error) {
	before := s.engine.State()
	d := Decision{State: before.Possible[0]}
	request := engine.Request{EntryPoint: record.Kind, Input: func(*engine.Policy) (ast.Value, error) { return input, nil }}
	ask := s.engine.Judge
	if record.Observed {
		ask = s.engine.Observe
	}
	v, err := ask(ctx, request)
	if ctx.Err() != nil {
		return d, ctx.Err()
	}
	if err != nil {
		d.Reason = err.Error()
		return d, nil
	}
	d.Reason = v.Reason
	if !v.Allowed {
		return d, nil
	}
	d.Outcome = Allowed
	return d, s.settle(v, step{before, record, input})
}

// settle makes the state follow an allowed request. Without an answer in the recording it counts as carried out, until another
// request of the recording speaks against it.
func (s *Session) settle(v *engine.Verdict, of step) error {
	if !v.Holds() {
		return nil
	}
	switch of.record.Agent {
	case trace.Refused:
		v.Discard()
		return nil
	case trace.Unknown:
		v.Doubt()
	default:
		if err := v.Commit(); err != nil {
			return err
		}
	}
	s.history = append(s.history, of)
	if len(s.history) > maxHistory {
		s.history = s.history[1:]
	}
	return nil
}

// otherwise looks for an earlier request that, had the agent refused it, would make this one allowed, and whose answer the recording
// does not hold. The session then goes on as if it had been refused.
func (s *Session) otherwise(ctx context.Context, denied Decision, now step) (Decision, error) {
	if active := s.engine.Active(); active == nil || !active.ReadsState(now.record.Kind) {
		return denied, nil
	}
	history := s.history
	for i := len(history) - 1; i >= max(0, len(history)-maxRefused); i-- {
		if history[i].record.Agent != "" || history[i].record.Observed {
			continue
		}
		if err := s.restore(ctx, history[i].before); err != nil {
			return denied, err
		}
		s.history = append([]step{}, history[:i]...)
		for _, later := range history[i+1:] {
			if _, err := s.once(ctx, later.record, later.input); err != nil {
				return denied, err
			}
		}
		d, err := s.once(ctx, now.record, now.input)
		if err != nil {
			return denied, err
		}
		if d.Outcome == Allowed {
			d.Outcome, d.Reason = Unknown, denied.Reason
			d.Missing = fmt.Sprintf("whether the agent carried out the %s of line %d", history[i].record.Kind, history[i].record.Line)
			return d, nil
		}
	}
	s.history = history
	return denied, s.restore(ctx, now.before)
}

func (s *Session) restore(ctx context.Context, state engine.State) error {
	return s.engine.Restore(ctx, s.engine.Active(), state)
}
