// SPDX-License-Identifier: Apache-2.0

package binding

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine"
	"portcullis/engine/fragment"
	"portcullis/internal/wait"
	"portcullis/measure"
	"portcullis/measure/eventlog"
	"portcullis/measure/record"
)

// measureTimeout bounds one measurement: a TPM that does not answer must not hold requests back for good.
const measureTimeout = 20 * time.Second

// defaultCompileTimeout is a hundred times what the largest policy of genpolicy takes; an emulated guest is twenty times slower.
const defaultCompileTimeout = 20 * time.Second

// SetPolicy makes text the active policy, or a fragment take effect on it, or returns an *Error. A refused text leaves everything
// as it was, with one exception: when it is not sure any more that the register does not hold it, no request is let through until
// a SetPolicy succeeds.
func (c *Chain) SetPolicy(ctx context.Context, text []byte) error {
	if err := wait.Acquire(ctx, c.setting); err != nil {
		return err
	}
	defer func() { <-c.setting }()
	if fragment.IsText(text) {
		return c.setFragment(ctx, text)
	}
	if err := c.settle(ctx, nil); err != nil {
		return err
	}
	if c.isActive(text) {
		return nil
	}
	if err := c.replace(ctx, text); err != nil {
		c.log.Warn("policy refused", "code", string(err.Code), "error", err.Err, "size", len(text))
		return err
	}
	return nil
}

// isActive reports whether text is what a SetPolicy or initdata already made active: a repeated request keeps the state.
func (c *Chain) isActive(text []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.isSet && c.denied == nil && bytes.Equal(text, c.measured)
}

// replace walks the chain. The order of its steps is the package's promise.
func (c *Chain) replace(ctx context.Context, text []byte) *Error {
	if err := c.mayChange(ctx, text); err != nil {
		return err
	}
	if err := engine.CheckText(text); errors.Is(err, engine.ErrTextTooLarge) {
		return refuse(CodePolicyTooLarge, err)
	} else if err != nil {
		return refuse(CodePolicyInvalid, err)
	}
	event, err := newEvent(eventlog.Policy, c.cfg.Alg, text)
	if err != nil {
		return refuse(CodePolicyInvalid, err)
	}
	if err := c.compare(event); err != nil {
		return err
	}
	p, err := c.compile(ctx, text)
	if err != nil {
		return asError(CodePolicyInvalid, err)
	}
	return c.activate(ctx, p, event)
}

// mayChange checks, before anything is computed from the text, that the policy may be replaced by it.
func (c *Chain) mayChange(ctx context.Context, text []byte) *Error {
	c.mu.Lock()
	fatal, isSet, ran := c.fatal, c.isSet, c.ran
	c.mu.Unlock()
	switch {
	case fatal != nil:
		return fatal
	case c.cfg.Initdata != nil:
		return refuse(CodeInitdataLocked, errors.New("the policy comes from initdata, and this is another"))
	}
	if isSet && c.cfg.Update && c.cfg.Narrow != nil {
		if err := c.cfg.Narrow(c.cfg.Engine.Active().Text(), text); err != nil {
			return refuse(CodeNotNarrower, err)
		}
		return nil
	}
	if err := c.allowed(ctx, text); err != nil {
		return err
	}
	bound := c.cfg.Field != nil || c.cfg.Register != nil
	switch {
	case isSet && c.cfg.Update:
		return nil
	case isSet && bound:
		return refuse(CodeAlreadySet, errors.New("a policy is bound to this guest for its life"))
	case ran:
		return refuse(CodeAlreadyRunning, errors.New("another policy has let requests through; set the policy before the sandbox is created"))
	}
	return nil
}

// allowed asks the current policy.
func (c *Chain) allowed(ctx context.Context, text []byte) *Error {
	v, err := c.cfg.Engine.Judge(ctx, engine.Request{EntryPoint: "SetPolicyRequest", Input: func(*engine.Policy) (ast.Value, error) {
		return ast.NewObject([2]*ast.Term{ast.StringTerm("policy"), ast.StringTerm(string(text))}), nil
	}})
	if err != nil {
		return refuse(CodeForbidden, err)
	}
	defer v.Discard() // a new policy starts from fresh state, so what this one would change is void
	if !v.Allowed {
		return refuse(CodeForbidden, fmt.Errorf("the current policy does not allow it: %s", v.Reason))
	}
	return nil
}

// compare holds an event against what the launcher bound. A mismatch is recorded; a match is recorded when it takes effect.
func (c *Chain) compare(e measure.Event) *Error {
	if c.cfg.Field == nil {
		return nil
	}
	err := c.cfg.Field.Match(e.Digest)
	if err == nil {
		return nil
	}
	if c.cfg.Recorder != nil {
		if err := c.cfg.Recorder.Record(e, false); err != nil {
			c.log.Error("mismatch is not in the event log", "error", err)
		}
	}
	return asError(CodeDigestMismatch, err)
}

func (c *Chain) compile(ctx context.Context, text []byte) (*engine.Policy, error) {
	limit := cmp.Or(c.cfg.CompileTimeout, defaultCompileTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the policy did not compile within %v", limit))
	defer cancel()
	p, err := c.cfg.Compiler.Compile(ctx, text)
	if err != nil {
		return nil, err
	}
	if c.cfg.Strict && p.AllowsFailing() {
		return nil, refuse(CodePolicyWaives, errors.New("AllowRequestsFailingPolicy is true, which a bound guest does not take"))
	}
	return p, nil
}

// activate measures and records a compiled policy and makes it the active one. No request is admitted meanwhile, so that
// none is let through by the old policy once the new one is measured.
func (c *Chain) activate(ctx context.Context, p *engine.Policy, e measure.Event) *Error {
	change, refused := c.begin()
	if refused != nil {
		return refused
	}
	commit := func(ctx context.Context, s engine.State) *Error { return c.commit(ctx, p, e, s) }
	refused = c.swap(ctx, p, change, commit, func() {
		c.isSet, c.ran, c.denied, c.measured = true, false, nil, p.Text()
		c.updates.reset()
	})
	if refused != nil {
		return refused
	}
	c.log.Info("policy is active", "sha256", fmt.Sprintf("%x", p.Digest()), "bound", c.cfg.Facts.Binding, "size", e.Len)
	return nil
}

// swap makes p the active policy once commit has measured and recorded it, and ends the change: by done if all went well.
func (c *Chain) swap(ctx context.Context, p *engine.Policy, change engine.StateChange, commit func(context.Context, engine.State) *Error, done func()) *Error {
	var committed *Error
	err := c.cfg.Engine.ActivateAfter(ctx, p, change, func(s engine.State) error {
		// Half of it must not be done, so it does not end with the client.
		if committed = commit(context.WithoutCancel(ctx), s); committed != nil {
			return committed
		}
		return nil
	})
	switch {
	case committed != nil:
		c.end(func() { c.denyUnlessUnchanged(committed) })
		return committed
	case err != nil:
		c.end(func() {})
		return refuse(CodeAlreadyRunning, fmt.Errorf("a request of the current policy is still with the agent: %w", err))
	}
	c.end(done)
	return nil
}

// begin keeps requests waiting until end, unless the policy may not change any more.
func (c *Chain) begin() (engine.StateChange, *Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	update := c.cfg.Update && c.isSet
	if c.ran && !update {
		return 0, refuse(CodeAlreadyRunning, errors.New("another policy has let requests through meanwhile"))
	}
	c.changing = make(chan struct{})
	if update {
		return engine.KeepState, nil
	}
	return engine.FreshState, nil
}

// end lets requests through again, after change.
func (c *Chain) end(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
	close(c.changing)
	c.changing = nil
}

// denyUnlessUnchanged denies requests after a failed commit, unless it is sure that the register is as before: a verifier would
// believe that another policy decides than the one that does. The caller holds mu.
func (c *Chain) denyUnlessUnchanged(err *Error) {
	if c.fatal == nil && !err.unchanged && err.Code != CodeAlreadySet && err.Code != CodeDigestMismatch {
		c.denied = err
	}
}

// commit takes e into the register or the event log and p into the journal. It is called when nothing else can fail any more.
func (c *Chain) commit(ctx context.Context, p *engine.Policy, e measure.Event, s engine.State) *Error {
	if err := c.measure(ctx, e); err != nil {
		return err
	}
	if c.cfg.Record != nil {
		f := record.Fact{Kind: record.Policy, Binding: e.Binding, Alg: e.Alg, Digest: hex.EncodeToString(e.Digest)}
		if err := c.cfg.Record(ctx, f); err != nil {
			return unmeasured(CodeLogFailed, err)
		}
	}
	if i := c.cfg.Initdata; i != nil && i.Provide != nil {
		if err := i.Provide(); err != nil {
			return asError(CodeInitdataInvalid, err)
		}
	}
	if err := c.cfg.Journal.SetPolicy(p.Text(), s); err != nil {
		// Without its record the policy must not run: after a restart nobody would know it.
		return refuse(CodeLogFailed, err)
	}
	return nil
}

func (c *Chain) measure(ctx context.Context, e measure.Event) *Error {
	ctx, cancel := context.WithTimeout(ctx, measureTimeout)
	defer cancel()
	c.mu.Lock()
	update := c.cfg.Update && c.isSet
	c.mu.Unlock()
	var err error
	switch {
	case c.cfg.Register != nil && update:
		_, err = c.cfg.Register.Update(ctx, e)
	case c.cfg.Register != nil:
		_, err = c.cfg.Register.Measure(ctx, e)
	case c.cfg.Recorder != nil:
		if err := c.cfg.Recorder.Record(e, true); err != nil {
			return unmeasured(CodeLogFailed, err)
		}
	}
	if err != nil {
		return unmeasured(CodePCRExtend, err)
	}
	return nil
}
