// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"portcullis/internal/recent"
	"portcullis/internal/wait"
)

// DefaultCache is how many decisions are remembered where no other number is given.
const DefaultCache = 1024

// Options are fixed when an [Engine] is made.
type Options struct {
	// Timeout bounds one judgement, the reason for a denial included. Zero means DefaultTimeout.
	Timeout time.Duration
	// Workers is how many judgements are evaluated at a time. Zero means twice the processors, at least four.
	Workers int
	// Cache is how many decisions are remembered. Zero means DefaultCache, negative none.
	Cache int
}

// Engine decides requests by the active policy and keeps its state. It is safe for concurrent use.
type Engine struct {
	workers *workers
	cache   *recent.Map[cacheKey, *Verdict] // without those that hold the state
	world   atomic.Pointer[world]
	// holder holds one element while somebody may change the world. It is taken by whoever has a verdict with ops, from judgement to
	// outcome, and by an activation. Callers may take locks of their own while they hold it, never the other way round.
	holder chan struct{}
	record func(State) error // makes a state durable before it is current
}

// world is a policy with the states that are possible under it: immutable, replaced as a whole by whoever is the holder.
type world struct {
	policy     *Policy
	generation uint64 // activations so far
	tick       uint64 // changes so far, of policy or state
	states     []document
	data       []*snapshot // what the rules see, one for each state
}

// StateChange says what an activation does with the state.
type StateChange int

const (
	// FreshState starts the policy from {"pstate": {}}.
	FreshState StateChange = iota
	// KeepState lets the policy go on from the state of the one before it.
	KeepState
)

// New starts an engine with p active in fresh state. With a nil policy every judgement is ErrNoPolicy until one is activated.
func New(p *Policy, opts Options) *Engine {
	if opts.Timeout <= 0 {
		opts.Timeout = DefaultTimeout
	}
	if opts.Workers <= 0 {
		opts.Workers = max(4, 2*runtime.GOMAXPROCS(0))
	}
	if opts.Cache == 0 {
		opts.Cache = DefaultCache
	}
	e := &Engine{
		workers: startWorkers(opts.Workers, opts.Timeout),
		cache:   recent.New[cacheKey, *Verdict](opts.Cache),
		holder:  make(chan struct{}, 1),
		record:  func(State) error { return nil },
	}
	generation := uint64(0)
	if p != nil {
		generation = 1
	}
	e.install(p, generation, []document{freshState()})
	return e
}

// RecordTo has every state made durable by record before it becomes current, so that what is recorded is never behind. It must be
// called before the first judgement. States of an activation are recorded by its ready, not by record.
func (e *Engine) RecordTo(record func(State) error) { e.record = record }

// Close stops the workers. Judgements that are under way end; later ones are ErrClosed.
func (e *Engine) Close() { e.workers.stop() }

// Active is the policy that decides new requests, nil if there is none.
func (e *Engine) Active() *Policy { return e.world.Load().policy }

// Generation counts the activations so far.
func (e *Engine) Generation() uint64 { return e.world.Load().generation }

// State is the current state.
func (e *Engine) State() State { return stateOf(e.world.Load().states) }

// Activate makes p the active policy, in one step, once no verdict holds the state any more. Judgements without ops that are
// under way end with the policy they began with. It fails only when ctx ends first, and then changes nothing.
func (e *Engine) Activate(ctx context.Context, p *Policy, change StateChange) error {
	return e.ActivateAfter(ctx, p, change, func(State) error { return nil })
}

// ActivateAfter is Activate with one more condition: ready is called with the state that p begins in, when nothing else can
// fail any more and while nobody can change the state. Its error is returned as it is, and changes nothing.
func (e *Engine) ActivateAfter(ctx context.Context, p *Policy, change StateChange, ready func(State) error) error {
	if err := e.hold(ctx); err != nil {
		return fmt.Errorf("activate policy: %w", err)
	}
	defer e.release()
	w := e.world.Load()
	states := []document{freshState()}
	if change == KeepState {
		states = w.states
	}
	if err := ready(stateOf(states)); err != nil {
		return err
	}
	e.install(p, w.generation+1, states)
	return nil
}

// Restore makes p the active policy in state s, as after a restart. It fails, and then changes nothing, if s is not a state
// that [Engine.State] could have given or RecordTo was given, or when ctx ends.
func (e *Engine) Restore(ctx context.Context, p *Policy, s State) error {
	states, err := s.documents()
	if err != nil {
		return fmt.Errorf("restore policy state: %w", err)
	}
	if err := e.hold(ctx); err != nil {
		return fmt.Errorf("restore policy state: %w", err)
	}
	defer e.release()
	e.install(p, e.world.Load().generation+1, states)
	return nil
}

// hold waits until nobody else may change the world.
func (e *Engine) hold(ctx context.Context) error { return wait.Acquire(ctx, e.holder) }

func (e *Engine) release() { <-e.holder }

// install replaces the world. Only the holder may call it.
func (e *Engine) install(p *Policy, generation uint64, states []document) {
	w := &world{policy: p, generation: generation, states: states}
	old := e.world.Load()
	if old != nil {
		w.tick = old.tick + 1
	}
	if p != nil {
		for _, s := range states {
			w.data = append(w.data, s.snapshot(p))
		}
	}
	e.world.Store(w)
	if old != nil && old.generation != generation {
		e.cache.Clear() // decisions name their policy, and with it keep in memory what it was compiled to
	}
}
