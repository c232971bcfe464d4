// Package binding decides which policy rules: it takes SetPolicy through its checks in a fixed order, and activates a policy
// only when the hardware or the vTPM vouches for it.
//
// The order is: the same bytes as active? then nothing to do. Does the current policy allow it? May the policy still change?
// Bounds and UTF-8. Digest. Compare with what the launcher bound. Compile and prepare. Measure. Swap. An invalid policy
// therefore never reaches the register, and nothing is active that was not bound first. Until the last step the old policy
// decides.
//
// The package knows the hardware only by the small interfaces that its caller fills.
package binding

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine"
	"portcullis/engine/journal"
)

// Field is the value that the launcher bound into this guest: SNP HOST_DATA or TDX MRCONFIGID, read once at start.
type Field interface {
	// Match compares a digest with the field, padded or truncated as the initdata specification says. Any difference is
	// an error.
	Match(digest []byte) error
}

// Measurer takes a digest into the register, or only into the event log where there is no register. It returns nil once the
// digest counts as measured in this boot; measuring the same digest again has no effect.
type Measurer interface {
	Measure(ctx context.Context, e Event) error
}

// Event is what is measured.
type Event struct {
	Type   string // "policy" or "initdata"
	Alg    string // of Digest: sha256, sha384 or sha512
	Digest []byte // raw, as long as Alg says
	Size   int    // bytes of what was digested
}

// Initdata is what the guest was started with, already read and parsed.
type Initdata struct {
	Alg    string
	Digest []byte // over the exact bytes of the TOML document
	Size   int    // bytes of the document
	Policy []byte // data["policy.rego"]; nil if there is no such key
	// Provide hands the rest (aa.toml, cdh.toml) to its consumers. It is called after binding, before the policy is active.
	Provide func() error
}

// Config is what a chain is made of. Engine, Compiler, Default and Journal are required. Engine must have Default active.
type Config struct {
	Engine   *engine.Engine
	Compiler *engine.Compiler
	Default  *engine.Policy // decides SetPolicyRequest, and everything else while Open, until a policy is set
	Journal  *journal.Journal

	Open     bool     // the default policy decides all requests until a policy is set
	Field    Field    // nil: no TEE
	Measurer Measurer // nil: nothing is measured
	Update   bool     // a later SetPolicy is measured too and keeps the container inventory
	Strict   bool     // refuse a policy with AllowRequestsFailingPolicy
	Alg      string   // of the policy's digest
	Initdata *Initdata
	// Denied is set when start-up found that nothing may run, whatever policy comes.
	Denied *Error
	Log    *slog.Logger
}

// Chain is the one place that changes the active policy. Its methods may be called concurrently.
type Chain struct {
	Config

	setting sync.Mutex // one SetPolicy at a time

	mu     sync.Mutex
	denied *Error // why nothing is allowed; nil once a policy decides
	isSet  bool   // a policy other than the default is active
	ran    bool   // the active policy let a request through
}

// exempt lists requests that may be allowed before a policy is set without the pod counting as running.
var exempt = map[string]bool{"SetPolicyRequest": true, "CheckRequest": true}

// New returns a chain in its first state: open to the default policy, or denying all.
func New(c Config) *Chain {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	chain := &Chain{Config: c, denied: c.Denied}
	if chain.denied == nil && !c.Open {
		chain.denied = refuse(CodeNotSet, errors.New("no policy has been set; send SetPolicy first"))
	}
	return chain
}

// Judge decides one request, as engine.Engine.Judge does, while no reason to deny everything stands. The verdict counts for
// the policy that is active when Judge returns.
func (c *Chain) Judge(ctx context.Context, r engine.Request) (*engine.Verdict, error) {
	for {
		if err := c.Denial(); err != nil {
			return nil, err
		}
		v, err := c.Engine.Judge(ctx, r)
		if err != nil || !v.Allowed {
			return v, err
		}
		ok, err := c.admit(r.EntryPoint, v)
		if ok || err != nil {
			return v, err
		}
		v.Discard() // judged by a policy that was replaced meanwhile
	}
}

// admit makes an allowed request count as run by its policy, unless that policy is no longer active.
func (c *Chain) admit(entryPoint string, v *engine.Verdict) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.denied != nil || v.Policy != c.Engine.Active() {
		return false, nil
	}
	if c.ran || exempt[entryPoint] {
		return true, nil
	}
	err := c.Journal.Update(func(r *journal.Record) error {
		r.Ran = true
		return nil
	})
	if err != nil {
		v.Discard()
		return false, refuse(CodeLogFailed, err)
	}
	c.ran = true
	return true, nil
}

// Observe gives the active policy the agent's answer to a request that it allowed.
func (c *Chain) Observe(ctx context.Context, r engine.Request) (*engine.Verdict, error) {
	return c.Engine.Observe(ctx, r)
}

// State is the active policy's state.
func (c *Chain) State() engine.State { return c.Engine.State() }

// Denial returns why all requests are denied, nil if a policy decides them.
func (c *Chain) Denial() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.denied == nil {
		return nil
	}
	return c.denied
}

// Deny makes all requests denied from now on, whatever policy comes. It is for what is found after start, such as a changed
// copy of initdata.
func (c *Chain) Deny(code Code, cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Denied = refuse(code, cause)
	c.denied = c.Denied
	c.Log.Error("all requests are denied from now on", "code", string(code), "error", cause)
}

// SetPolicy makes text the active policy, or returns an *Error and leaves everything as it was.
func (c *Chain) SetPolicy(ctx context.Context, text []byte) error {
	c.setting.Lock()
	defer c.setting.Unlock()
	if c.isActive(text) {
		return nil
	}
	err := c.replace(ctx, text)
	if err != nil {
		c.Log.Warn("policy refused", "code", string(err.Code), "error", err.Err, "size", len(text))
		return err
	}
	return nil
}

// isActive reports whether text is what a SetPolicy or initdata already made active: a repeated request keeps the state.
func (c *Chain) isActive(text []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.isSet && c.denied == nil && bytes.Equal(text, c.Engine.Active().Text())
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
	event, err := newEvent("policy", c.Alg, text)
	if err != nil {
		return refuse(CodePolicyInvalid, err)
	}
	if c.Field != nil {
		if err := c.Field.Match(event.Digest); err != nil {
			return because(CodeDigestMismatch, err)
		}
	}
	p, err := c.compile(ctx, text)
	if err != nil {
		return because(CodePolicyInvalid, err)
	}
	return c.activate(ctx, p, event, nil)
}

// mayChange checks, before anything is computed from the text, that the policy may be replaced by it.
func (c *Chain) mayChange(ctx context.Context, text []byte) *Error {
	c.mu.Lock()
	denied, isSet, ran := c.Denied, c.isSet, c.ran
	c.mu.Unlock()
	switch {
	case denied != nil:
		return denied
	case c.Initdata != nil:
		return refuse(CodeInitdataLocked, errors.New("the policy comes from initdata, and this is another"))
	}
	if err := c.allowed(ctx, text); err != nil {
		return err
	}
	switch {
	case isSet && !c.Update && (c.Field != nil || c.Measurer != nil):
		return refuse(CodeAlreadySet, errors.New("a policy is bound to this guest for its life"))
	case ran && !c.Update:
		return refuse(CodeAlreadyRunning, errors.New("another policy has let requests through; set the policy before the sandbox is created"))
	}
	return nil
}

// allowed asks the current policy.
func (c *Chain) allowed(ctx context.Context, text []byte) *Error {
	v, err := c.Engine.Judge(ctx, engine.Request{EntryPoint: "SetPolicyRequest", Input: func(*engine.Policy) (ast.Value, error) {
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

func (c *Chain) compile(ctx context.Context, text []byte) (*engine.Policy, error) {
	p, err := c.Compiler.Compile(ctx, text)
	if err != nil {
		return nil, err
	}
	if c.Strict && p.AllowsFailing() {
		return nil, refuse(CodePolicyWaives, errors.New("AllowRequestsFailingPolicy is true, which mode required does not take"))
	}
	return p, nil
}

// activate measures a compiled policy, calls ready if there is one, and makes the policy the active one. No request is
// admitted meanwhile, so that none runs under the old policy once the new one is measured.
func (c *Chain) activate(ctx context.Context, p *engine.Policy, e Event, ready func() error) *Error {
	ctx = context.WithoutCancel(ctx) // half of it must not be done
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ran && !c.Update {
		return refuse(CodeAlreadyRunning, errors.New("another policy has let requests through meanwhile"))
	}
	if c.Measurer != nil {
		if err := c.Measurer.Measure(ctx, e); err != nil {
			return because(CodePCRExtend, err)
		}
	}
	if ready != nil {
		if err := ready(); err != nil {
			return because(CodeInitdataInvalid, err)
		}
	}
	if err := c.swap(ctx, p); err != nil {
		return refuse(CodeLogFailed, err)
	}
	c.Log.Info("policy is active", "sha256", fmt.Sprintf("%x", p.Digest()), "bound", e.Type, "size", e.Size)
	return nil
}

// swap makes p active and records it. The caller holds mu.
func (c *Chain) swap(ctx context.Context, p *engine.Policy) error {
	change := engine.FreshState
	if c.Update && c.isSet {
		change = engine.KeepState
	}
	if err := c.Engine.Activate(ctx, p, change); err != nil {
		return err
	}
	if err := c.Journal.SetPolicy(p.Text(), c.Engine.State()); err != nil {
		// Without its record the policy must not run: after a restart nobody would know it.
		c.Denied = refuse(CodeLogFailed, err)
		c.denied = c.Denied
		return err
	}
	c.isSet, c.ran, c.denied = true, false, nil
	return nil
}
