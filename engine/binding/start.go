package binding

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"portcullis/engine"
	"portcullis/engine/journal"
)

// Start brings the chain into the state it begins to serve in: what an earlier process of this boot left in the journal, or
// what initdata says, or else the default policy. agentRuns says that an agent is already there. An error is never a reason
// to run open: it is also the reason of every denial from then on.
func (c *Chain) Start(ctx context.Context, agentRuns bool) error {
	record, text, err := c.Journal.Load()
	switch {
	case c.denied != nil && c.Denied != nil:
		return c.Denied
	case errors.Is(err, journal.ErrNone) && agentRuns:
		return c.lost(errors.New("an agent is running and there is no journal of what it runs"))
	case errors.Is(err, journal.ErrNone):
		return c.startInitdata(ctx)
	case err != nil:
		return c.lost(err)
	}
	if err := c.restore(ctx, record, text); err != nil {
		return c.lost(err)
	}
	return nil
}

// lost denies everything but what ends a pod: nobody knows what runs beside this process.
func (c *Chain) lost(cause error) error {
	c.Deny(CodeStateLost, cause)
	return c.Denied
}

// startInitdata binds and activates the policy of the guest's initdata, if there is initdata.
func (c *Chain) startInitdata(ctx context.Context) error {
	if c.Initdata == nil {
		return nil
	}
	if err := c.bindInitdata(ctx); err != nil {
		c.Deny(err.Code, err.Err)
		return err
	}
	return nil
}

func (c *Chain) bindInitdata(ctx context.Context) *Error {
	i := c.Initdata
	if c.Field != nil {
		if err := c.Field.Match(i.Digest); err != nil {
			return because(CodeDigestMismatch, err)
		}
	}
	if i.Policy == nil {
		return refuse(CodeInitdataInvalid, errors.New("initdata has no policy.rego"))
	}
	p, err := c.compile(ctx, i.Policy)
	if err != nil {
		return because(CodePolicyInvalid, err)
	}
	return c.activate(ctx, p, i.event(), i.Provide)
}

func (i *Initdata) event() Event {
	return Event{Type: "initdata", Alg: i.Alg, Digest: i.Digest, Size: i.Size}
}

// restore makes the journal's policy active again in its state. The hardware and the register have to vouch for it again.
func (c *Chain) restore(ctx context.Context, record journal.Record, text []byte) error {
	if record.Pending != "" {
		err := c.Journal.Update(func(r *journal.Record) error {
			id := r.Pending
			r.Pending = ""
			return r.Burn(id)
		})
		if err != nil {
			return err
		}
	}
	p := c.Default
	if record.Policy != "" {
		var err error
		if p, err = c.rebind(ctx, text); err != nil {
			return err
		}
	}
	if err := c.Engine.Restore(ctx, p, record.State); err != nil {
		return fmt.Errorf("restore policy state: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isSet, c.ran = record.Policy != "", record.Ran
	if c.isSet {
		c.denied = nil
	}
	digest := p.Digest()
	c.Log.Info("policy and state restored", "sha256", hex.EncodeToString(digest[:]), "ran", record.Ran)
	return nil
}

// rebind checks that a restored policy is the one that was bound, and compiles it.
func (c *Chain) rebind(ctx context.Context, text []byte) (*engine.Policy, error) {
	event, err := newEvent("policy", c.Alg, text)
	if err != nil {
		return nil, err
	}
	if c.Initdata != nil {
		if string(text) != string(c.Initdata.Policy) {
			return nil, refuse(CodeInitdataLocked, errors.New("the restored policy is not the one of initdata"))
		}
		event = c.Initdata.event()
	}
	if c.Field != nil {
		if err := c.Field.Match(event.Digest); err != nil {
			return nil, because(CodeDigestMismatch, err)
		}
	}
	p, err := c.compile(ctx, text)
	if err != nil {
		return nil, err
	}
	if c.Measurer != nil {
		if err := c.Measurer.Measure(ctx, event); err != nil {
			return nil, because(CodePCRUnexpected, err)
		}
	}
	return p, nil
}
