// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"fmt"
	"sync"
)

// Verdict is the decision on one request.
type Verdict struct {
	Allowed bool
	// Waived: the policy denied or failed, and lets the request pass because AllowRequestsFailingPolicy was true when it was
	// compiled. Reason says what it would have denied for.
	Waived bool
	// Cached: the same request was decided before, under the same policy in the same state.
	Cached bool
	// Reason says why the policy denied: one line of at most MaxReason bytes. Empty when it allowed by itself.
	Reason string
	// Policy is the policy that decided, and Generation counts the activations up to it.
	Policy     *Policy
	Generation uint64

	hold *hold
}

// Why a state does not become current.
var (
	ErrResolved = errors.New("policy state was released without a commit")
	ErrRecord   = errors.New("policy state cannot be recorded")
)

// hold is the right to change the state, which one verdict at a time has.
type hold struct {
	engine *Engine
	now    *world
	after  []document // possible states if the request took effect
	either []document // possible states if nobody knows

	mu      sync.Mutex // taken by the holder; the recorder's lock is taken under it
	begun   bool       // what is recorded allows for either outcome
	outcome outcome    // 0 while nobody knows
	err     error      // of the outcome
}

// outcome is how a hold was resolved.
type outcome int

const (
	committed outcome = iota + 1
	discarded
	doubted
)

// begin records that both outcomes are possible.
func (h *hold) begin() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.outcome != 0 || h.begun {
		return nil
	}
	if err := h.engine.record(stateOf(h.either)); err != nil {
		return fmt.Errorf("%w: %w", ErrRecord, err)
	}
	h.begun = true
	return nil
}

// resolve makes the outcome's state current and releases the hold, the first time. The state is recorded before. Where that fails
// and the request was begun, the record says "both", which is safe; else the state stays as it was.
func (h *hold) resolve(o outcome) (outcome, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.outcome != 0 {
		return h.outcome, h.err
	}
	defer h.engine.release()
	states := map[outcome][]document{committed: h.after, discarded: h.now.states, doubted: h.either}[o]
	if changes := o == committed || o == discarded && h.begun || o == doubted && !h.begun; changes {
		if err := h.engine.record(stateOf(states)); err != nil && !h.begun {
			h.outcome, h.err = discarded, fmt.Errorf("%w: %w", ErrRecord, err)
			return h.outcome, h.err
		}
	}
	h.outcome = o
	if o != discarded {
		h.engine.install(h.now.policy, h.now.generation, states)
	}
	return o, nil
}

// Holds says whether the verdict holds the state: exactly one of Commit, Discard and Doubt must then be called. Until it is,
// further requests with ops wait. It stays true after that.
func (v *Verdict) Holds() bool { return v.hold != nil }

// Begin must be called before the request is sent to whom it may change: from then on the recorded state allows for both
// outcomes, until one of Commit, Discard and Doubt tells which it was. After an error, which wraps ErrRecord, the request must not
// be sent. Without a hold it does nothing.
func (v *Verdict) Begin() error {
	if v.hold == nil {
		return nil
	}
	return v.hold.begin()
}

// Commit makes the request's ops part of the state: the agent succeeded. Without a hold, and after a Commit, it does nothing. The
// error is ErrResolved, or wraps ErrRecord where the request was not begun; the state is then as it was.
func (v *Verdict) Commit() error {
	if v.hold == nil {
		return nil
	}
	switch o, err := v.hold.resolve(committed); {
	case err != nil:
		return err
	case o != committed:
		return ErrResolved
	}
	return nil
}

// Discard leaves the state as it was: the agent refused, and nothing happened. Once resolved, the verdict stays as it is.
func (v *Verdict) Discard() {
	if v.hold != nil {
		_, _ = v.hold.resolve(discarded) // a record that stays behind says "both"
	}
}

// Doubt makes both states possible, with the request's ops and without: nobody knows whether the agent has carried it out.
func (v *Verdict) Doubt() {
	if v.hold != nil {
		_, _ = v.hold.resolve(doubted) // it was begun, or else nothing was sent that could be in doubt
	}
}
