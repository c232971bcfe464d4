// SPDX-License-Identifier: Apache-2.0

package binding

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"portcullis/engine"
	"portcullis/measure/record"
)

// Facts are what start-up found out about this guest. They do not change.
type Facts struct {
	Version string      `json:"version"` // of policyd, as git describe names it
	Rules   []string    `json:"rules"`   // the held rules, "sha256:..." as compact policies name them
	Mode    string      `json:"mode"`    // required, auto or off; required where a TEE shows itself
	Backend string      `json:"backend"` // snp, tdx, vtpm or none
	Binding string      `json:"binding"` // policy, initdata or none: what the hardware vouches for
	Note    string      `json:"note,omitempty"`
	Field   *FieldFacts `json:"field,omitempty"`
	Log     string      `json:"log,omitempty"` // file of the event log
}

// FieldFacts is the field of the launcher as it was read at start.
type FieldFacts struct {
	Name   string `json:"name"`   // hostdata or mrconfigid
	Value  string `json:"value"`  // hexadecimal
	Source string `json:"source"` // device or sysfs
}

// RegisterStatus is a register beside its log.
type RegisterStatus struct {
	Name   string            `json:"name"`             // pcr8
	Device string            `json:"device"`           // of the TPM
	State  string            `json:"state"`            // empty, preextended, measured or unexpected
	Values map[string]string `json:"values"`           // hexadecimal, by bank
	Events uint64            `json:"events"`           // of the log that are in the register
	Digest string            `json:"digest,omitempty"` // the latest of them, hexadecimal
	Error  string            `json:"error,omitempty"`  // why there is no more to show
}

// The values of Status.State.
const (
	StateDenied  = "denied"  // no request is let through; Code says why
	StateDefault = "default" // the default policy decides, no other was set
	StateActive  = "active"  // a policy that was set decides
)

// Status is a chain at one moment. It holds nothing secret.
type Status struct {
	Facts
	State       string           `json:"state"`
	Code        Code             `json:"code,omitempty"`      // why requests are denied
	Reason      string           `json:"reason,omitempty"`    // the same for people, one line
	Policy      string           `json:"policy"`              // SHA-256 of the policy's text as it was measured, hexadecimal
	Size        int              `json:"size"`                // of that text, in bytes
	Fragments   []FragmentStatus `json:"fragments,omitempty"` // that it decides with, in the order in which they came
	Initdata    *DigestStatus    `json:"initdata,omitempty"`
	Register    *RegisterStatus  `json:"register,omitempty"`
	Generation  uint64           `json:"generation"`             // activations so far
	Ran         bool             `json:"ran"`                    // the policy has let requests through
	Unobserved  uint64           `json:"unobserved"`             // answers of the agent that the policy failed to take note of
	PodComplete *bool            `json:"pod_complete,omitempty"` // the policy's pod_complete, if it has that rule
	Record      *record.State    `json:"record,omitempty"`       // the launch record, if there is one; its owner fills it in
	Requests    []RequestCount   `json:"requests,omitempty"`     // decisions so far; the gate's owner fills them in
}

// FragmentStatus is a fragment in force.
type FragmentStatus struct {
	Digest string `json:"digest"` // SHA-256 of its document, hexadecimal
	Feed   string `json:"feed"`
	SVN    uint64 `json:"svn"`
	Issuer string `json:"issuer"`
}

// RequestCount are the decisions on one kind of request since this process began.
type RequestCount struct {
	Request string   `json:"request"`
	Allowed uint64   `json:"allowed"`
	Denied  uint64   `json:"denied"`
	Seconds float64  `json:"seconds"` // that all decisions took, waiting included
	Within  []uint64 `json:"within"`  // decisions that took at most Latencies[i]
}

// Latencies are the bounds that decisions are counted by.
var Latencies = [...]time.Duration{
	250 * time.Microsecond, 500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second,
}

// DigestStatus is a digest with its algorithm.
type DigestStatus struct {
	Alg    string `json:"alg"`
	Digest string `json:"digest"` // hexadecimal
}

// statusTimeout bounds how long a status waits for the register.
const statusTimeout = 3 * time.Second

// podCompleteRule is the rule by which a policy says that all its containers run.
const podCompleteRule = "pod_complete"

// Status shows where the chain stands. It changes nothing.
func (c *Chain) Status(ctx context.Context) Status {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	s := c.now()
	if i := c.cfg.Initdata; i != nil {
		s.Initdata = &DigestStatus{Alg: i.Alg, Digest: hex.EncodeToString(i.Digest)}
	}
	if c.cfg.Register != nil {
		now, err := c.cfg.Register.State(ctx)
		r := RegisterStatus{Name: fmt.Sprintf("pcr%d", now.PCR), Device: now.Device, State: now.State, Values: now.Values, Events: now.Seq, Digest: now.Digest}
		if err != nil {
			r.Error = engine.OneLine(err.Error(), maxErrorText)
		}
		s.Register = &r
	}
	if s.State != StateDenied && c.cfg.Engine.Active().Has(podCompleteRule) {
		if complete, err := c.podComplete(ctx); err == nil {
			s.PodComplete = &complete
		}
	}
	return s
}

// PodComplete says whether a policy decides that has a rule pod_complete, and by it every container of it was started.
func (c *Chain) PodComplete(ctx context.Context) bool {
	if c.Denial() != nil {
		return false
	}
	complete, err := c.podComplete(ctx)
	return err == nil && complete
}

func (c *Chain) podComplete(ctx context.Context) (bool, error) {
	v, err := c.cfg.Engine.Judge(ctx, engine.Request{EntryPoint: podCompleteRule})
	if err != nil {
		return false, err
	}
	v.Discard()
	return v.Allowed && !v.Waived, nil
}

func (c *Chain) now() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := c.measured
	if !c.isSet {
		text = c.cfg.Engine.Active().Text()
	}
	digest := sha256.Sum256(text)
	s := Status{Facts: c.cfg.Facts, State: StateDefault, Policy: hex.EncodeToString(digest[:]), Size: len(text), Fragments: c.updates.status(),
		Generation: c.cfg.Engine.Generation(), Ran: c.ran, Unobserved: c.unobserved.Load()}
	switch {
	case c.denied != nil:
		s.State, s.Code, s.Reason = StateDenied, c.denied.Code, engine.OneLine(c.denied.Err.Error(), maxErrorText)
	case c.isSet:
		s.State = StateActive
	}
	return s
}
