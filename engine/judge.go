// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown/print"
)

// Request is one question to the policy.
type Request struct {
	// EntryPoint is the rule that decides, a protobuf message name such as CreateContainerRequest.
	EntryPoint string
	// Key is the SHA-256 of the request's deterministic encoding. The zero Key keeps the decision out of the cache.
	Key [sha256.Size]byte
	// Turns bounds how many requests of one client are evaluated at a time, by its capacity: a client that asks much then waits
	// for itself, and others come in between. Nil for no bound.
	Turns chan struct{}
	// Input builds the input document for the policy that is going to decide: it may leave out what that policy does not reach.
	// It is not called on a cache hit, and again if another policy was activated meanwhile. Nil means no input.
	Input func(*Policy) (ast.Value, error)
	// Generation is that of the only policy that may decide: ErrOtherPolicy if another is active. Zero means any.
	Generation uint64
	// Lenient makes an expression whose builtin fails undefined, as OPA's server does. Otherwise the request is denied.
	Lenient bool
}

// Judge decides one request. Undefined, ill-formed and failing decisions deny. An error means that the request could not be
// decided, which callers treat as a denial: ErrDeadline, ErrEvaluation, ErrPanic, ErrClosed, ErrNoPolicy, the error of Input
// or that of ctx, or ErrOtherPolicy. If the verdict holds the state, exactly one of its Commit, Discard and Doubt must be called.
func (e *Engine) Judge(ctx context.Context, r Request) (*Verdict, error) {
	w := e.world.Load()
	if w.policy == nil {
		return nil, ErrNoPolicy
	}
	key := w.cacheKey(r)
	cacheable := r.Key != [sha256.Size]byte{}
	if cacheable {
		if v, ok := e.cache.Get(key); ok {
			return v, nil
		}
	}
	v, err := e.settle(ctx, w, question{Request: r, parse: parseDecision})
	if err == nil && cacheable && !v.Holds() && !w.policy.ReadsState(r.EntryPoint) {
		hit := *v
		hit.Cached = true
		e.cache.Put(key, &hit)
	}
	return v, err
}

// Recall returns the decision on a request that is in the cache, nil if none is.
func (e *Engine) Recall(r Request) *Verdict {
	if r.Key == [sha256.Size]byte{} {
		return nil
	}
	v, _ := e.cache.Get(e.world.Load().cacheKey(r))
	return v
}

// cacheKey names a decision: what was asked, and of which policy in which state.
type cacheKey struct {
	entryPoint        string
	request           [sha256.Size]byte
	policy, stateTick uint64
	lenient           bool
}

func (w *world) cacheKey(r Request) cacheKey {
	return cacheKey{entryPoint: r.EntryPoint, request: r.Key, policy: w.generation, stateTick: w.tick, lenient: r.Lenient}
}

// ErrOtherPolicy says that the policy of a request's Generation is not active any more.
var ErrOtherPolicy = errors.New("another policy was activated since")

// Observe tells the policy what the agent has answered, under an entry point such as WaitProcessResponse. The decision is
// undefined or not there, when there is nothing to do, or {"ops": [...]}, to which "allowed": true may be added. The verdict is
// Allowed, and holds the state if there are ops, or says in Reason why the decision cannot be carried out. Errors are those of
// [Engine.Judge].
func (e *Engine) Observe(ctx context.Context, r Request) (*Verdict, error) {
	w := e.world.Load()
	if w.policy == nil {
		return nil, ErrNoPolicy
	}
	return e.settle(ctx, w, question{Request: r, parse: parseObservation})
}

// question is a request with the way to read its answer.
type question struct {
	Request
	parse func(ast.Value) decision
}

// evaluation is what one evaluation needs.
type evaluation struct {
	entry *entry
	data  *snapshot
	input ast.Value // nil for none
	// strict makes an error of a builtin the evaluation's, as kata-agent's engine does; else its expression is undefined, as
	// everywhere in OPA.
	strict bool
	hook   print.Hook // takes what is printed; nil for none
}

// judgement is the answer to a question in every possible state of a world.
type judgement struct {
	world  *world
	denied bool
	reason string
	after  []document // nil if there are no ops
}

// maxSettle is how often a judgement without ops is made because the world has changed meanwhile, before it waits until the world
// stands.
const maxSettle = 8

// settle evaluates without a lock until the state is the same before and after, where the answer can depend on it, so that what
// is allowed is allowed now. Another policy's activation does not count: who lets the request through looks at that. Only if
// there are ops, or others have been faster each time, it becomes the holder, and then evaluates once more in case the world has
// changed while it waited.
func (e *Engine) settle(ctx context.Context, w *world, q question) (*Verdict, error) {
	for tries := 1; ; tries++ {
		j, err := e.evaluate(ctx, w, q)
		if err != nil {
			return nil, err
		}
		if j.after != nil || tries == maxSettle {
			return e.settleHeld(ctx, j, q)
		}
		now := e.world.Load()
		if now == w || now.generation != w.generation || !w.policy.ReadsState(q.EntryPoint) {
			return j.verdict(), nil
		}
		w = now
	}
}

// settleHeld is settle for the holder: of a judgement with ops it stays that.
func (e *Engine) settleHeld(ctx context.Context, j *judgement, q question) (*Verdict, error) {
	if err := e.hold(ctx); err != nil {
		return nil, err
	}
	if now := e.world.Load(); now != j.world {
		var err error
		if j, err = e.evaluate(ctx, now, q); err != nil {
			e.release()
			return nil, err
		}
	}
	if j.after == nil {
		e.release()
		return j.verdict(), nil
	}
	v := j.verdict()
	v.hold = &hold{engine: e, now: j.world, after: j.after, either: distinct(j.world.states, j.after)}
	return v, nil
}

// verdict is the judgement without its hold.
func (j *judgement) verdict() *Verdict {
	waived := j.denied && j.world.policy.waives
	return &Verdict{
		Allowed:    !j.denied || waived,
		Waived:     waived,
		Reason:     j.reason,
		Policy:     j.world.policy,
		Generation: j.world.generation,
	}
}

// evaluate answers a question in one world, on a worker.
func (e *Engine) evaluate(ctx context.Context, w *world, q question) (*judgement, error) {
	if q.Generation != 0 && q.Generation != w.generation {
		return nil, ErrOtherPolicy
	}
	en := w.policy.program.entries[q.EntryPoint]
	if en == nil {
		if q.parse(nil).allowed {
			return &judgement{world: w}, nil
		}
		return w.deny("the policy has no rule " + q.EntryPoint), nil
	}
	return run(ctx, e.workers, q.Turns, func(ctx context.Context) (*judgement, error) {
		in := evaluation{entry: en, strict: !q.Lenient}
		if q.Input != nil {
			var err error
			if in.input, err = q.Input(w.policy); err != nil {
				return nil, fmt.Errorf("build input: %w", err)
			}
		}
		j, err := w.decide(ctx, in, q.parse)
		if w.policy.waives && errors.Is(err, ErrEvaluation) {
			return w.deny(err.Error()), nil
		}
		return j, err
	})
}

func (w *world) deny(reason string) *judgement {
	return &judgement{world: w, denied: true, reason: OneLine(reason, MaxReason)}
}

// decide allows what is allowed in every possible state, each with the ops that it gives there.
func (w *world) decide(ctx context.Context, in evaluation, parse func(ast.Value) decision) (*judgement, error) {
	q, err := in.entry.query()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrEvaluation, OneLine(err.Error(), 200))
	}
	var after []document
	changed := false
	for i, state := range w.states {
		in.data = w.data[i]
		v, err := q.eval(ctx, in)
		if err != nil {
			return nil, err
		}
		d := parse(v)
		if !d.allowed {
			return w.deny(w.policy.whyDenied(ctx, in, d)), nil
		}
		if d.ops != nil {
			if state, err = state.patched(d.ops); err != nil {
				return w.deny("the policy's ops do not apply: " + err.Error()), nil
			}
			changed = true
		}
		after = distinct(after, []document{state})
	}
	if !changed {
		return &judgement{world: w}, nil
	}
	if err := checkStates(distinct(w.states, after)); err != nil {
		return w.deny(err.Error()), nil
	}
	return &judgement{world: w, after: after}, nil
}

func (p *Policy) whyDenied(ctx context.Context, in evaluation, d decision) string {
	if d.malformed != "" {
		return d.malformed
	}
	if why := p.reason(ctx, in); why != "" {
		return why
	}
	return "no rule of the policy allows it"
}

// decision is the value of an entry point.
type decision struct {
	allowed   bool
	ops       *ast.Array // nil for none
	malformed string     // what is wrong with the value
}

// parseDecision reads the answer to a request: a boolean, or {"allowed": bool, "ops": array}.
func parseDecision(v ast.Value) decision {
	switch v := v.(type) {
	case nil:
		return decision{}
	case ast.Boolean:
		return decision{allowed: bool(v)}
	case ast.Object:
		d := parseObject(v)
		if d.malformed == "" && v.Get(ast.StringTerm("allowed")) == nil {
			return decision{malformed: "the policy's decision lacks allowed"}
		}
		return d
	}
	return decision{malformed: "the policy's decision is of type " + ast.ValueName(v)}
}

// parseObservation reads the answer to an observation: undefined, or {"ops": array}, with or without "allowed": true.
func parseObservation(v ast.Value) decision {
	if v == nil {
		return decision{allowed: true}
	}
	obj, ok := v.(ast.Object)
	if !ok || obj.Get(ast.StringTerm("ops")) == nil {
		return decision{malformed: "the policy's observation is not an object with ops"}
	}
	d := parseObject(obj)
	if d.malformed != "" {
		return d
	}
	if obj.Get(ast.StringTerm("allowed")) != nil && !d.allowed {
		return decision{malformed: "the policy's observation is not allowed"}
	}
	d.allowed = true
	return d
}

func parseObject(obj ast.Object) decision {
	var d decision
	obj.Foreach(func(k, v *ast.Term) {
		allowed, isBool := v.Value.(ast.Boolean)
		ops, isArray := v.Value.(*ast.Array)
		switch name, _ := k.Value.(ast.String); {
		case name == "allowed" && isBool:
			d.allowed = bool(allowed)
		case name == "ops" && isArray:
			if ops.Len() > 0 {
				d.ops = ops
			}
		case name == "allowed":
			d.malformed = "the policy's allowed is not a boolean"
		case name == "ops":
			d.malformed = "the policy's ops is not an array"
		default:
			d.malformed = "the policy's decision has a member besides allowed and ops"
		}
	})
	if d.malformed != "" {
		return decision{malformed: d.malformed}
	}
	return d
}
