package engine

import (
	"errors"
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

// ErrResolved is returned by Commit when the verdict was discarded or put in doubt before.
var ErrResolved = errors.New("policy state was released without a commit")

// hold is the right to change the state, which one verdict at a time has.
type hold struct {
	engine *Engine
	now    *world
	after  []document // possible states if the request took effect
	either []document // possible states if nobody knows

	once    sync.Once
	outcome outcome
}

// outcome is how a hold was resolved.
type outcome int

const (
	committed outcome = iota + 1
	discarded
	doubted
)

// resolve releases the hold, the first time.
func (h *hold) resolve(o outcome) {
	h.once.Do(func() {
		h.outcome = o
		switch o {
		case committed:
			h.engine.install(h.now.policy, h.now.generation, h.after)
		case doubted:
			h.engine.install(h.now.policy, h.now.generation, h.either)
		}
		h.engine.release()
	})
}

// Holds says whether the verdict holds the state: exactly one of Commit, Discard and Doubt must then be called. Until it is,
// further requests with ops wait. It stays true after that.
func (v *Verdict) Holds() bool { return v.hold != nil }

// Commit makes the request's ops part of the state: the agent succeeded. Without a hold, and after a Commit, it does nothing.
func (v *Verdict) Commit() error {
	h := v.hold
	if h == nil {
		return nil
	}
	if h.resolve(committed); h.outcome != committed {
		return ErrResolved
	}
	return nil
}

// Discard leaves the state as it was: the agent refused, and nothing happened. Once resolved, the verdict stays as it is.
func (v *Verdict) Discard() {
	if h := v.hold; h != nil {
		h.resolve(discarded)
	}
}

// Doubt makes both states possible, with the request's ops and without: nobody knows whether the agent has carried it out.
func (v *Verdict) Doubt() {
	if h := v.hold; h != nil {
		h.resolve(doubted)
	}
}

// Next is the state that Commit would make current. Without a hold it is empty.
func (v *Verdict) Next() State {
	if v.hold == nil {
		return State{}
	}
	return stateOf(v.hold.after)
}

// InDoubt is the state that Doubt would make current: what a journal must hold while the agent is at work. Without a hold it is
// empty.
func (v *Verdict) InDoubt() State {
	if v.hold == nil {
		return State{}
	}
	return stateOf(v.hold.either)
}
