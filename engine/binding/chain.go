// SPDX-License-Identifier: Apache-2.0

// Package binding decides which policy rules: it takes SetPolicy through its checks in a fixed order, and activates a policy
// only when the hardware or the vTPM vouches for it.
//
// The order is: the same bytes as active? then nothing to do. Does the current policy allow it? May the policy still change?
// Bounds and UTF-8. Digest. Compare with what the launcher bound. Compile and prepare. Measure. Record. Swap. An invalid
// policy therefore never reaches the register, and nothing is active that was not bound first. Until the last step the old
// policy decides, and from the measurement on nobody is let through by it.
//
// The package knows the hardware only by the small interfaces that its caller fills.
package binding

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"portcullis/engine"
	"portcullis/engine/journal"
	"portcullis/internal/wait"
	"portcullis/measure"
	"portcullis/measure/eventlog"
	"portcullis/measure/record"
)

// Field is the value that the launcher bound into this guest: SNP HOST_DATA or TDX MRCONFIGID, read once at start.
type Field interface {
	// Match compares a digest with the field, padded or truncated as the initdata specification says. Any difference is
	// an error.
	Match(digest []byte) error
}

// Register takes digests into a register that only accumulates, and its event log. *measure.Register implements it.
type Register interface {
	// Resume returns what was measured in this boot. It changes nothing. An error says that the register cannot be read, or
	// holds what nobody accounted for.
	Resume(ctx context.Context) (measure.Standing, error)
	// Measure takes the first digest of this boot. The same digest again has no effect, another is an error.
	Measure(ctx context.Context, e measure.Event) (eventlog.Record, error)
	// Update takes a digest onto those before it. The one measured last again has no effect.
	Update(ctx context.Context, e measure.Event) (eventlog.Record, error)
	// State is for display.
	State(ctx context.Context) (measure.Status, error)
}

// Recorder writes the event log where there is a Field and nothing to extend.
type Recorder interface {
	// Record makes the comparison of e with the field durable. A repeated one may be left out.
	Record(e measure.Event, match bool) error
}

// Initdata is what the guest was started with, already read and parsed.
type Initdata struct {
	Alg    string
	Digest []byte // over the exact bytes of the TOML document
	Size   int    // bytes of the document
	Policy []byte // data["policy.rego"]; nil if there is no such key
	// Fragments are data["fragments"]: texts of fragments, accepted in their order once the policy is bound. The document's
	// digest binds them.
	Fragments [][]byte
	// Provide takes the disk from its driver and hands the rest (aa.toml, cdh.toml) to its consumers. It is called after
	// binding, before the policy is active, and again after a restart.
	Provide func() error
	// Unchanged compares the copies that consumers read with what was bound. It is called before the first request is let
	// through, and before each that puts something into the guest.
	Unchanged func() error
}

// Config is what a chain is made of. Engine, Compiler, Default and Journal are required.
type Config struct {
	Engine   *engine.Engine // Default is active in it
	Compiler *engine.Compiler
	Default  *engine.Policy // decides SetPolicyRequest, and everything else while Open, until a policy is set
	Journal  *journal.Journal

	Open     bool     // the default policy decides all requests until a policy is set
	Field    Field    // nil: no TEE
	Register Register // nil: nothing is extended
	Recorder Recorder // nil: no event log without a register
	Update   bool     // a later SetPolicy is measured too and keeps the container inventory; needs Register
	// Narrow says why it cannot be shown that a later policy allows no more than the one that decides; nil: with Update, the
	// policy that decides is asked instead.
	Narrow func(current, next []byte) error
	Strict bool   // refuse a policy with AllowRequestsFailingPolicy
	Alg    string // of the policy's digest
	// CompileTimeout bounds the compilation of one policy, whatever time its client grants. Zero means 20 seconds.
	CompileTimeout time.Duration
	Initdata       *Initdata
	// Record takes a policy or fragment into the launch record, once it is measured and before it decides; nil: there is none.
	Record func(ctx context.Context, f record.Fact) error
	// NoInitdata says why a guest that was started without initdata has some now; nil: nobody looks. It is called before a request
	// is let through that may start something: first for the first request of all.
	NoInitdata func(first bool) error
	// Denied is set when start-up found that nothing may run, whatever policy comes.
	Denied *Error
	Facts  Facts // for display
	Log    *slog.Logger
}

// Chain is the one place that changes the active policy. Its methods may be called concurrently.
type Chain struct {
	cfg     Config
	log     *slog.Logger
	setting chan struct{} // holds one element while somebody sets a policy; taken before the engine's holder

	unobserved atomic.Uint64 // answers of the agent that the policy could not take note of

	mu       sync.Mutex    // taken under the engine's holder, not the other way round; the journal's lock is taken under it
	denied   *Error        // why nothing is allowed; nil once a policy decides
	fatal    *Error        // denied for the life of this process, whatever policy comes
	changing chan struct{} // nobody is admitted until it is closed; nil when no policy is being swapped
	isSet    bool          // a policy other than the default is active
	measured []byte        // its text as it was measured; the engine has the one that fragments make of it
	updates  updates       // fragments that it decides with; changed by who is setting
	ran      bool          // the active policy let a request through
}

var (
	// uncounted requests may be allowed before a policy is set without the pod counting as running.
	uncounted = map[string]bool{"SetPolicyRequest": true, "CheckRequest": true}
	// starting requests put something of the pod's into the guest: before each, initdata is looked at again.
	starting = map[string]bool{"CreateSandboxRequest": true, "CreateContainerRequest": true}
	// ending requests end a pod: they pass even when nobody knows what runs.
	ending = map[string]bool{"WaitProcessRequest": true, "DestroySandboxRequest": true}
)

// New returns a chain in its first state: open to the default policy, or denying all.
func New(c Config) *Chain {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	chain := &Chain{cfg: c, log: c.Log, setting: make(chan struct{}, 1), denied: c.Denied, fatal: c.Denied}
	c.Engine.RecordTo(c.Journal.SetState)
	if chain.denied == nil && !c.Open {
		chain.denied = refuse(CodeNotSet, errors.New("no policy has been set; send SetPolicy first"))
	}
	return chain
}

// Admit decides one request, as engine.Engine.Judge does, while no reason to deny everything stands. The verdict counts for
// the policy that is active when Admit returns. While a policy is being swapped, it waits for the one that comes.
func (c *Chain) Admit(ctx context.Context, r engine.Request) (*engine.Verdict, error) {
	for {
		if err := c.settled(ctx); err != nil {
			return nil, err
		}
		if err := c.Denial(); err != nil {
			if codeOf(err) == CodeStateLost && ending[r.EntryPoint] {
				return &engine.Verdict{Allowed: true}, nil
			}
			return nil, err
		}
		v, err := c.cfg.Engine.Judge(ctx, r)
		if err != nil || !v.Allowed {
			return v, err
		}
		ok, err := c.countRun(r.EntryPoint, v)
		if ok {
			return v, nil
		}
		v.Discard() // judged by a policy that is being replaced, or not to be let through
		if err != nil {
			return nil, err
		}
	}
}

// Stands reports whether a verdict of Admit still counts: the policy that allowed the request rules, and nothing has closed the
// guest. One that holds the state keeps its policy from being replaced; one without a policy lets a pod end that nobody knows any
// more.
func (c *Chain) Stands(v *engine.Verdict) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case v.Policy == nil:
		return true
	case c.denied != nil:
		return false
	}
	return v.Holds() || c.changing == nil && v.Policy == c.cfg.Engine.Active()
}

// Recall returns what Admit would return now if that takes no evaluation of a policy, else nil.
func (c *Chain) Recall(r engine.Request) *engine.Verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changing != nil || !c.ran || c.denied != nil {
		return nil
	}
	return c.cfg.Engine.Recall(r)
}

// settled waits until no policy is being swapped.
func (c *Chain) settled(ctx context.Context) error {
	c.mu.Lock()
	changing := c.changing
	c.mu.Unlock()
	if changing == nil {
		return nil
	}
	return wait.For(ctx, changing)
}

// countRun makes an allowed request count as run by its policy, unless that policy does not decide any more.
func (c *Chain) countRun(entryPoint string, v *engine.Verdict) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changing != nil || c.denied != nil || v.Policy != c.cfg.Engine.Active() {
		return false, nil
	}
	if uncounted[entryPoint] {
		return true, nil
	}
	if !c.ran || starting[entryPoint] {
		if err := c.initdataKept(); err != nil {
			return false, c.deny(asError(CodeInitdataChanged, err))
		}
	}
	if c.ran {
		return true, nil
	}
	err := c.cfg.Journal.Update(func(r *journal.Record) error {
		r.Ran = true
		return nil
	})
	if err != nil {
		return false, refuse(CodeLogFailed, err)
	}
	c.ran = true
	return true, nil
}

// initdataKept says why the guest's components do not find the initdata that was bound, or find some where there was none. The
// caller holds mu.
func (c *Chain) initdataKept() error {
	switch i := c.cfg.Initdata; {
	case i != nil && i.Unchanged != nil:
		return i.Unchanged()
	case i == nil && c.cfg.NoInitdata != nil:
		return c.cfg.NoInitdata(!c.ran)
	}
	return nil
}

// Observe gives the active policy the agent's answer to a request that it allowed, as engine.Engine.Observe does, and counts the
// answers of which the policy took no note because its decision could not be used.
func (c *Chain) Observe(ctx context.Context, r engine.Request) (*engine.Verdict, error) {
	v, err := c.cfg.Engine.Observe(ctx, r)
	if err != nil || v.Reason != "" {
		c.unobserved.Add(1)
	}
	return v, err
}

// Started reports whether containers may be running: a policy has been set, the default one has let something pass, or nobody
// knows what ran before a restart. While a guest is closed for another reason nothing is taken to run.
func (c *Chain) Started() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.denied != nil {
		return c.denied.Code == CodeStateLost
	}
	return c.isSet || c.ran
}

// errUnwritten is the error that a client gets; the log says why.
var errUnwritten = errors.New("the restart journal cannot be written")

// TakeID makes a container id count as used for the rest of the boot. After an error, which says why in words for the host, the
// container must not be created.
func (c *Chain) TakeID(id string) error {
	err := c.cfg.Journal.Take(id)
	if err == nil || errors.Is(err, journal.ErrTaken) {
		return err
	}
	c.log.Error("container id cannot be taken", "error", err)
	if errors.Is(err, journal.ErrTooManyIDs) {
		return err
	}
	return errUnwritten
}

// Suspend leaves a state in the journal that no policy can be restored in: a process that starts after this one denies everything.
func (c *Chain) Suspend() error {
	return c.cfg.Journal.SetState(engine.State{Possible: []json.RawMessage{[]byte("null")}})
}

// Resume undoes Suspend: the journal holds the active policy's state again.
func (c *Chain) Resume() error { return c.cfg.Journal.SetState(c.cfg.Engine.State()) }

// Denial returns why all requests are denied, an *Error, or nil if a policy decides them.
func (c *Chain) Denial() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.denied == nil {
		return nil
	}
	return c.denied
}

// Deny makes all requests denied from now on, whatever policy comes.
func (c *Chain) Deny(code Code, cause error) { _ = c.closed(refuse(code, cause)) }

// closed denies all requests from now on because of err, which it returns.
func (c *Chain) closed(err *Error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deny(err)
}

// deny is Deny for the holder of mu. It returns err.
func (c *Chain) deny(err *Error) *Error {
	c.fatal, c.denied = err, err
	c.log.Error("all requests are denied from now on", "code", string(err.Code), "error", err.Err)
	return err
}
