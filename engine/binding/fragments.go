// SPDX-License-Identifier: Apache-2.0

package binding

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"

	"portcullis/engine"
	"portcullis/engine/fragment"
	"portcullis/measure"
	"portcullis/measure/record"
)

// updates are the fragments that the policy decides with, and what is known of others. They are changed by who is setting, under mu.
type updates struct {
	accepted []update          // the latest of each issuer's feed, in the order in which they were accepted
	svns     map[string]uint64 // highest accepted in this boot, by fragment.Issuer.Line; outlives a new policy
}

// reset forgets the fragments: they were of another policy.
func (u *updates) reset() { u.accepted = nil }

// update is a fragment whose issuer was found.
type update struct {
	signed   *fragment.Signed
	issuer   *fragment.Issuer
	envelope []byte
	initdata bool // the document that was bound at launch holds it
}

// name is what the journal calls it.
func (u *update) name() string { return nameOf(u.envelope) }

func nameOf(envelope []byte) string {
	sum := sha256.Sum256(envelope)
	return hex.EncodeToString(sum[:])
}

func (u *update) fact() record.Fact {
	return record.Fact{Kind: record.Fragment, Alg: "sha256", Digest: u.signed.Digest(), Feed: u.issuer.Feed, SVN: u.signed.Document.SVN, Issuer: u.issuer.ID()}
}

// with is the list of accepted fragments once u has taken the place of the one before it on its line.
func (u *updates) with(next *update) []update {
	var out []update
	for _, old := range u.accepted {
		if old.issuer.Line() != next.issuer.Line() {
			out = append(out, old)
		}
	}
	return append(out, *next)
}

// merged are fragments as they change a policy.
func merged(list []update) []fragment.Accepted {
	out := make([]fragment.Accepted, len(list))
	for i, u := range list {
		out[i] = fragment.Accepted{Document: u.signed.Document, Issuer: u.issuer}
	}
	return out
}

// setFragment makes a fragment take effect, as SetPolicy does a policy, in an order that is a promise too: envelope, issuer, svn,
// ceiling, compilation; then it is proposed in the journal, measured, recorded, accepted in the journal, and decides. Until then
// the policy decides as it was.
func (c *Chain) setFragment(ctx context.Context, text []byte) error {
	var refused *Error
	if envelope, err := fragment.FromText(text); err != nil {
		refused = refuseFragment(err)
	} else {
		refused = c.accept(ctx, envelope, false)
	}
	if refused == nil {
		return nil
	}
	c.log.Warn("fragment refused", "error", refused, "size", len(text))
	return refused
}

// accept walks the chain with one envelope. Who calls it is setting.
func (c *Chain) accept(ctx context.Context, envelope []byte, bound bool) *Error {
	if err := c.mayUpdate(); err != nil {
		return err
	}
	if err := c.settle(ctx, envelope); err != nil {
		return err
	}
	u, err := c.open(envelope)
	if err != nil {
		return refuseFragment(err)
	}
	u.initdata = bound
	if c.inForce(u) {
		return nil
	}
	if svn := c.updates.svns[u.issuer.Line()]; u.signed.Document.SVN <= svn {
		return refuseFragment(fmt.Errorf("%w: %d, and %d was accepted in this boot for feed %s", fragment.ErrRollback, u.signed.Document.SVN, svn, u.issuer.Feed))
	}
	return c.apply(ctx, u)
}

// mayUpdate says why no fragment can be taken.
func (c *Chain) mayUpdate() *Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.fatal != nil:
		return c.fatal
	case !c.isSet:
		return refuse(CodeNotSet, errors.New("no policy has been set that a fragment could update"))
	}
	return nil
}

// settle finds out what became of another fragment whose measurement had an outcome that nobody knew.
func (c *Chain) settle(ctx context.Context, envelope []byte) *Error {
	pending := c.cfg.Journal.Record().Pending
	if pending == "" || pending == nameOf(envelope) {
		return nil // the same one again goes on where it was
	}
	return c.finish(ctx, pending)
}

// finish completes a fragment that the register holds already, and gives up one that it does not.
func (c *Chain) finish(ctx context.Context, pending string) *Error {
	u, err := c.kept(pending)
	if err != nil {
		return refuseFragment(fmt.Errorf("a fragment that was being measured: %w", err))
	}
	if c.cfg.Register == nil {
		return c.apply(ctx, u)
	}
	policy, err := c.eventOf(c.measured)
	if err != nil {
		return refuse(CodePolicyInvalid, err)
	}
	expected, err := c.expected(policy)
	if err != nil {
		return refuse(CodeLogFailed, err)
	}
	digest, refused := c.lastMeasured(ctx)
	switch {
	case refused != nil:
		return refused
	case bytes.Equal(digest, expected[0]):
		return c.giveUp()
	case bytes.Equal(digest, expected[1]):
		return c.apply(ctx, u)
	}
	return refuse(CodePCRUnexpected, fmt.Errorf("the register holds %x, neither the latest fragment nor the one that was being measured", digest))
}

// giveUp forgets a fragment that was proposed and not measured: the policy decides as before.
func (c *Chain) giveUp() *Error {
	if err := c.cfg.Journal.Accept(names(c.updates.accepted), c.updates.svns); err != nil {
		return refuse(CodeLogFailed, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.denied = c.fatal
	return nil
}

// open finds who vouches for an envelope under the measured policy.
func (c *Chain) open(envelope []byte) (*update, error) {
	signed, err := fragment.Open(envelope)
	if err != nil {
		return nil, err
	}
	issuers, err := fragment.Issuers(c.measured)
	if err != nil {
		return nil, err
	}
	if len(issuers) == 0 {
		return nil, fmt.Errorf("%w: it names no issuers", fragment.ErrPolicy)
	}
	issuer, err := signed.Issuer(issuers)
	if err != nil {
		return nil, err
	}
	return &update{signed: signed, issuer: issuer, envelope: bytes.Clone(envelope)}, nil
}

// inForce says whether the fragment decides already: sent again, it changes nothing.
func (c *Chain) inForce(u *update) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, old := range c.updates.accepted {
		if old.issuer.Line() == u.issuer.Line() && old.signed.Digest() == u.signed.Digest() {
			return c.denied == nil
		}
	}
	return false
}

// apply compiles what the policy becomes, measures the fragment and makes the result decide.
func (c *Chain) apply(ctx context.Context, u *update) *Error {
	if err := c.witnessed(u); err != nil {
		return err
	}
	list := c.updates.with(u)
	p, err := c.compileMerged(ctx, list)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.changing = make(chan struct{})
	c.mu.Unlock()
	svns := maps.Clone(c.updates.svns)
	if svns == nil {
		svns = map[string]uint64{}
	}
	svns[u.issuer.Line()] = u.signed.Document.SVN
	commit := func(ctx context.Context, _ engine.State) *Error { return c.commitFragment(ctx, u, names(list), svns) }
	if err := c.swap(ctx, p, engine.KeepState, commit, func() { c.denied, c.updates = nil, updates{list, svns} }); err != nil {
		return err
	}
	f := u.fact()
	c.log.Info("fragment is in force", "sha256", f.Digest, "feed", f.Feed, "svn", f.SVN, "issuer", f.Issuer)
	return nil
}

// witnessed refuses a fragment of which no verifier could learn: a guest that is bound by a launch field alone has nothing that
// it could extend, unless it keeps a launch record.
func (c *Chain) witnessed(u *update) *Error {
	if c.cfg.Register != nil || c.cfg.Record != nil || c.cfg.Field == nil || u.initdata {
		return nil
	}
	return refuse(CodeNoBackend, errors.New("nothing here could show a verifier that the policy was updated: it takes a vTPM, or measure.pod"))
}

// compileMerged compiles the measured policy with fragments.
func (c *Chain) compileMerged(ctx context.Context, list []update) (*engine.Policy, *Error) {
	text, err := fragment.Merge(c.measured, merged(list))
	if err != nil {
		return nil, refuseFragment(err)
	}
	p, err := c.compile(ctx, text)
	if errors.Is(err, engine.ErrTextTooLarge) {
		return nil, refuse(CodePolicyTooLarge, err)
	}
	if err != nil {
		return nil, asError(CodePolicyInvalid, err)
	}
	return p, nil
}

// commitFragment proposes, measures, records and accepts. It is called when nothing else can fail any more.
func (c *Chain) commitFragment(ctx context.Context, u *update, names []string, svns map[string]uint64) *Error {
	event, err := u.fact().FragmentEvent()
	if err != nil {
		return refuse(CodeFragmentInvalid, err)
	}
	if err := c.cfg.Journal.Propose(u.envelope); err != nil {
		return &Error{Code: CodeLogFailed, Err: err, unchanged: true}
	}
	if c.cfg.Register != nil {
		if err := c.update(ctx, event); err != nil {
			return err
		}
	}
	if c.cfg.Record != nil {
		if err := c.cfg.Record(ctx, u.fact()); err != nil {
			return unmeasured(CodeLogFailed, err)
		}
	}
	if err := c.cfg.Journal.Accept(names, svns); err != nil {
		return refuse(CodeLogFailed, err)
	}
	return nil
}

// update measures an event onto those before it.
func (c *Chain) update(ctx context.Context, e measure.Event) *Error {
	ctx, cancel := context.WithTimeout(ctx, measureTimeout)
	defer cancel()
	if _, err := c.cfg.Register.Update(ctx, e); err != nil {
		return unmeasured(CodePCRExtend, err)
	}
	return nil
}

func names(list []update) []string {
	var out []string
	for i := range list {
		out = append(out, list[i].name())
	}
	return out
}

// refuseFragment gives an error of package fragment its code.
func refuseFragment(err error) *Error {
	switch {
	case errors.Is(err, fragment.ErrRollback):
		return refuse(CodeFragmentRollback, err)
	case errors.Is(err, fragment.ErrCeiling):
		return refuse(CodeFragmentCeiling, err)
	case errors.Is(err, fragment.ErrIssuer), errors.Is(err, fragment.ErrSignature), errors.Is(err, fragment.ErrPolicy), errors.Is(err, fragment.ErrIssuers):
		return refuse(CodeFragmentIssuer, err)
	}
	return refuse(CodeFragmentInvalid, err)
}

func (u *updates) status() []FragmentStatus {
	var out []FragmentStatus
	for i := range u.accepted {
		f := u.accepted[i].fact()
		out = append(out, FragmentStatus{f.Digest, f.Feed, f.SVN, f.Issuer})
	}
	return out
}
