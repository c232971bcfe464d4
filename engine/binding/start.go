// SPDX-License-Identifier: Apache-2.0

package binding

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"portcullis/engine"
	"portcullis/engine/fragment"
	"portcullis/engine/journal"
	"portcullis/measure"
	"portcullis/measure/eventlog"
)

// Start brings the chain into the state it begins to serve in: what an earlier process of this boot left in the journal, or
// what initdata says, or else the default policy. agentRuns says that an agent is already there. An error is never a reason
// to run open: it is also the reason of every denial from then on.
func (c *Chain) Start(ctx context.Context, agentRuns bool) error {
	record, text, err := c.cfg.Journal.Load()
	switch {
	case c.fatal != nil:
		return c.fatal
	case errors.Is(err, journal.ErrNone) && agentRuns:
		return c.lost(errors.New("an agent is running and there is no journal of what it runs"))
	case errors.Is(err, journal.ErrNone):
		return c.startBoot(ctx)
	case err != nil:
		return c.lost(err)
	case record.Policy != "":
		return c.resume(ctx, record, text)
	case c.cfg.Initdata != nil && record.Ran:
		return c.lost(errors.New("there is initdata now, and the default policy has let requests through before"))
	}
	return c.resumeDefault(ctx, record)
}

// lost denies everything but what ends a pod: nobody knows what runs beside this process.
func (c *Chain) lost(cause error) error {
	return c.closed(refuse(CodeStateLost, cause))
}

// startBoot is startFresh for the first process of a boot. That nothing has run yet is recorded before anything can: a process that
// is killed before the policy comes, as one that the host's bytes exhaust may be, is then followed by one that can go on.
func (c *Chain) startBoot(ctx context.Context) error {
	if err := c.cfg.Journal.Update(func(*journal.Record) error { return nil }); err != nil {
		return c.closed(refuse(CodeLogFailed, err))
	}
	return c.startFresh(ctx)
}

// startFresh begins with a policy: with initdata's policy, if there is initdata, else without a policy. What an earlier process
// measured and did not live to activate must be sent again before anything runs.
func (c *Chain) startFresh(ctx context.Context) error {
	if i := c.cfg.Initdata; i != nil {
		if err := c.bindInitdata(ctx, i); err != nil {
			return c.closed(err)
		}
		return nil
	}
	digest, err := c.lastMeasured(ctx)
	if err == nil && digest != nil {
		err = refuse(CodeNotSet, fmt.Errorf("the policy with digest %x was measured and is not active; send it again", digest))
	}
	if err == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.denied = err // a SetPolicy tries again
	return err
}

// lastMeasured is the digest that was measured last in this boot, nil if none was or there is no register.
func (c *Chain) lastMeasured(ctx context.Context) ([]byte, *Error) {
	if c.cfg.Register == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, measureTimeout)
	defer cancel()
	standing, err := c.cfg.Register.Resume(ctx)
	switch {
	case err != nil:
		return nil, unmeasured(CodePCRUnexpected, err)
	case standing.Event == nil:
		return nil, nil
	}
	return standing.Event.Digest, nil
}

func (c *Chain) bindInitdata(ctx context.Context, i *Initdata) *Error {
	if err := c.compare(i.event()); err != nil {
		return err
	}
	if i.Policy == nil {
		return refuse(CodeInitdataInvalid, errors.New("initdata has no policy.rego"))
	}
	p, err := c.compile(ctx, i.Policy)
	if err != nil {
		return asError(CodePolicyInvalid, err)
	}
	if err := c.activate(ctx, p, i.event()); err != nil {
		return err
	}
	return c.bindFragments(ctx, i)
}

// bindFragments makes the fragments of initdata take effect, after a restart those that have not yet.
func (c *Chain) bindFragments(ctx context.Context, i *Initdata) *Error {
	for n, text := range i.Fragments {
		envelope, err := fragment.FromText(text)
		if err != nil {
			return refuse(CodeInitdataInvalid, fmt.Errorf("fragment %d: %w", n, err))
		}
		u, err := c.open(envelope)
		if err == nil && c.updates.svns[u.issuer.Line()] >= u.signed.Document.SVN {
			continue
		}
		if err := c.accept(ctx, envelope, true); err != nil {
			return refuse(CodeInitdataInvalid, fmt.Errorf("fragment %d: %w", n, err))
		}
	}
	return nil
}

func (i *Initdata) event() measure.Event {
	return measure.Event{Type: eventlog.Initdata, Binding: eventlog.Initdata, Alg: i.Alg, Digest: i.Digest, Len: int64(i.Size)}
}

// resumeDefault goes on with the default policy in the journal's state.
func (c *Chain) resumeDefault(ctx context.Context, record journal.Record) error {
	if len(record.State.Possible) > 0 { // else no request has changed the state
		if err := c.cfg.Engine.Restore(ctx, c.cfg.Default, record.State); err != nil {
			return c.lost(err)
		}
	}
	c.mu.Lock()
	c.ran = record.Ran
	c.mu.Unlock()
	return c.startFresh(ctx)
}

// errReplaced says that the register holds a later policy than the journal.
var errReplaced = errors.New("a later policy was measured and is not active; send it again")

// resume makes the journal's policy active again in its state. The hardware and the register have to confirm it again.
func (c *Chain) resume(ctx context.Context, record journal.Record, text []byte) error {
	if err := c.restoreFragments(record, text); err != nil {
		return c.lost(err)
	}
	p, err := c.rebind(ctx, text)
	if err != nil && !errors.Is(err, errReplaced) {
		return c.lost(err)
	}
	if err := c.cfg.Engine.Restore(ctx, p, record.State); err != nil {
		return c.lost(err)
	}
	if i := c.cfg.Initdata; i != nil && i.Provide != nil {
		if err := i.Provide(); err != nil {
			return c.closed(asError(CodeInitdataInvalid, err))
		}
	}
	c.mu.Lock()
	c.isSet, c.ran, c.denied = true, record.Ran, nil
	if err != nil {
		c.denied = refuse(CodeNotSet, err)
	}
	c.mu.Unlock()
	if err != nil {
		return refuse(CodeNotSet, err)
	}
	if record.Pending != "" {
		if err := c.finish(ctx, record.Pending); err != nil {
			return c.lost(err)
		}
	}
	if i := c.cfg.Initdata; i != nil { // killed before they took effect
		if err := c.bindFragments(ctx, i); err != nil {
			return c.closed(err)
		}
	}
	c.log.Info("policy and state restored", "sha256", record.Policy, "ran", record.Ran)
	return nil
}

// rebind checks that a restored policy is the one that was bound, and compiles it. With errReplaced the policy is still the
// one to go on from: it ruled, and an update was measured that did not come into force.
func (c *Chain) rebind(ctx context.Context, text []byte) (*engine.Policy, error) {
	if i := c.cfg.Initdata; i != nil && !bytes.Equal(text, i.Policy) {
		return nil, errors.New("the restored policy is not the one of initdata")
	}
	event, err := c.eventOf(text)
	if err != nil {
		return nil, err
	}
	if err := c.compare(event); err != nil {
		return nil, err
	}
	p, err := c.compileRestored(ctx, text)
	if err != nil {
		return nil, err
	}
	if c.cfg.Register == nil {
		return p, nil
	}
	expected, err := c.expected(event)
	if err != nil {
		return nil, err
	}
	digest, refused := c.lastMeasured(ctx)
	switch {
	case refused != nil:
		return nil, refused
	case slices.ContainsFunc(expected, func(e []byte) bool { return bytes.Equal(digest, e) }):
		return p, nil
	case digest != nil && c.cfg.Update && c.cfg.Initdata == nil:
		return p, errReplaced
	}
	return nil, fmt.Errorf("the restored policy was measured as %s, the register holds %s", hex.EncodeToString(expected[0]), hex.EncodeToString(digest))
}

// eventOf is what was measured of the policy with that text: initdata, where it comes from there.
func (c *Chain) eventOf(text []byte) (measure.Event, error) {
	if i := c.cfg.Initdata; i != nil {
		return i.event(), nil
	}
	return newEvent(eventlog.Policy, c.cfg.Alg, text)
}

// restoreFragments takes the fragments of the journal, each held against the policy's issuers once more.
func (c *Chain) restoreFragments(r journal.Record, text []byte) error {
	c.mu.Lock()
	c.measured = text
	c.mu.Unlock()
	var list []update
	for _, name := range r.Fragments {
		u, err := c.kept(name)
		if err != nil {
			return err
		}
		list = append(list, *u)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.updates = updates{list, r.SVNs}
	return nil
}

// kept is a fragment of the journal.
func (c *Chain) kept(name string) (*update, error) {
	envelope, err := c.cfg.Journal.Fragment(name)
	if err != nil {
		return nil, err
	}
	u, err := c.open(envelope)
	if err != nil {
		return nil, err
	}
	u.initdata = c.cfg.Initdata != nil && slices.ContainsFunc(c.cfg.Initdata.Fragments, func(text []byte) bool {
		bound, err := fragment.FromText(text)
		return err == nil && bytes.Equal(bound, envelope)
	})
	return u, nil
}

// compileRestored compiles the measured text, or what the restored fragments make of it.
func (c *Chain) compileRestored(ctx context.Context, text []byte) (*engine.Policy, error) {
	if len(c.updates.accepted) == 0 {
		return c.compile(ctx, text)
	}
	p, err := c.compileMerged(ctx, c.updates.accepted)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// expected are the digests that the register may have taken last: of the latest fragment, else of the policy; and of a fragment
// that was being measured.
func (c *Chain) expected(policy measure.Event) ([][]byte, error) {
	latest := policy
	var err error
	if n := len(c.updates.accepted); n > 0 {
		if latest, err = c.updates.accepted[n-1].fact().FragmentEvent(); err != nil {
			return nil, err
		}
	}
	out := [][]byte{latest.Digest}
	pending := c.cfg.Journal.Record().Pending
	if pending == "" {
		return out, nil
	}
	u, err := c.kept(pending)
	if err != nil {
		return nil, err
	}
	event, err := u.fact().FragmentEvent()
	if err != nil {
		return nil, err
	}
	return append(out, event.Digest), nil
}
