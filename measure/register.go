// SPDX-License-Identifier: Apache-2.0

// Package measure keeps one register, a PCR of a vTPM, and its event log in step.
//
// What a [Register] does is decided by the register's value, our log, and whether another unit was to extend first; never by
// what the process remembers. Z is zero, X the value after extending Z by the digest:
//
//	value        log                  preextended  action of Measure
//	Z            empty                no           log, extend every bank, read back, commit
//	Z            empty                yes          refuse: the other unit failed
//	Z            has events           -            refuse: another boot's log, or the TPM was reset
//	X            empty                yes          log as verified, extend nothing
//	X            empty                no           refuse
//	X            one event, the same  -            nothing to do
//	replay(log)  events               -            nothing to do; Update may extend
//	other        -                    -            refuse, stating the value
//
// A process may die at any point between the steps of one measurement. The record is on disk, and the log marked, before the
// extend, so the next one finds: no mark, and the table applies; or a mark, and the register's value equal to the replay with
// the last record (it was extended: commit) or without it (it was not: remove the record, and begin again).
// Both lead to one extend.
//
// [Journal] writes the same log on platforms where the launch fixes the value (SNP, TDX) and nothing is extended.
package measure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"portcullis/internal/wait"
	"portcullis/measure/eventlog"
)

// Event is what is measured.
type Event struct {
	Type    string // [eventlog.Policy], [eventlog.Initdata], [eventlog.Pod] or [eventlog.Fragment]
	Binding string // the same words: what the register is bound to
	Text    string // of an event of the pod or of a fragment; Digest is its [eventlog.TextDigest]
	Alg     string // a register takes "sha256" only
	Digest  []byte // in Alg
	Len     int64  // bytes that Digest was taken over
}

// Register is one PCR with its log. It is safe for concurrent use; every operation opens the TPM and the log afresh.
type Register struct {
	cfg   Config
	held  chan struct{}
	known eventlog.Known // of the log, by who holds it
	// settled is where the last event of the pod left things, by who holds it. Other events always look first.
	settled settled
}

// New checks the configuration. It does not touch the TPM: whether there is one, [Register.Resume] says.
func New(cfg Config) (*Register, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	return &Register{cfg: cfg, held: make(chan struct{}, 1)}, nil
}

// Standing is what register and log say was measured in this boot.
type Standing struct {
	State State
	// Event is the latest event; nil unless State is [Measured].
	Event *Event
	// Record is the log's record of it; nil unless State is [Measured].
	Record *eventlog.Record
}

// Resume reads the PCR and the log, repairs what a dead process left between them, and returns what was measured. It never
// extends. The error is an [UnexpectedError] when the two do not fit; [Register.Measure] then refuses too.
func (r *Register) Resume(ctx context.Context) (Standing, error) {
	s, err := run(ctx, r, func() (Standing, error) {
		op, err := r.begin()
		if err != nil {
			return Standing{}, err
		}
		defer op.end()
		if op.state == Empty && r.cfg.ExpectPreextended {
			return Standing{}, op.notPreextended()
		}
		return op.standing(), nil
	})
	if err != nil {
		return Standing{}, fmt.Errorf("resume: %w", err)
	}
	return s, nil
}

// Records is [Register.Resume] for who wants all records that are in the register, oldest first.
func (r *Register) Records(ctx context.Context) ([]eventlog.Record, error) {
	records, err := run(ctx, r, func() ([]eventlog.Record, error) {
		op, err := r.begin()
		if err != nil {
			return nil, err
		}
		defer op.end()
		return op.cfg.view(op.log).records, nil
	})
	if err != nil {
		return nil, fmt.Errorf("resume: %w", err)
	}
	return records, nil
}

// Measure brings the event into the register, once: for the digest that was measured last it does nothing and returns the
// record of then, for any other it fails with [ErrMeasured]. The digest is in every bank of the PCR, read back, and in
// the log when Measure returns nil.
// When ctx ends first the measurement may still be completed; asking again tells.
func (r *Register) Measure(ctx context.Context, e Event) (eventlog.Record, error) {
	return r.measure(ctx, e, func(latest Event) error {
		return &MeasuredError{Got: e.Digest, Want: latest.Digest}
	})
}

// Update is [Register.Measure] for a register that was measured: another digest is extended onto those before it.
func (r *Register) Update(ctx context.Context, e Event) (eventlog.Record, error) {
	return r.measure(ctx, e, func(Event) error { return nil })
}

// measure calls replace before it extends a register that holds another digest.
func (r *Register) measure(ctx context.Context, e Event, replace func(latest Event) error) (eventlog.Record, error) {
	if e.Alg != "sha256" || len(e.Digest) != 32 {
		return eventlog.Record{}, fmt.Errorf("measure: %w: PCR %d takes a sha256 digest of 32 bytes, not %.16q of %d",
			ErrEvent, r.cfg.PCR, e.Alg, len(e.Digest))
	}
	if (e.Type == eventlog.Pod) != r.cfg.Pod {
		return eventlog.Record{}, fmt.Errorf("measure: %w: PCR %d takes no event of type %s", ErrEvent, r.cfg.PCR, e.Type)
	}
	e.Digest = bytes.Clone(e.Digest)
	rec, err := run(ctx, r, func() (eventlog.Record, error) {
		op, err := r.begin()
		if err != nil {
			return eventlog.Record{}, err
		}
		defer op.end()
		r.cfg.OnStep(StepRead)
		rec, err := op.measure(e, replace)
		if err == nil && r.cfg.Pod {
			r.settled = settled{op.pcr.banks, len(op.log.Records()), op.values, op.counter}
		}
		return rec, err
	})
	if err != nil {
		return eventlog.Record{}, fmt.Errorf("measure: %w", err)
	}
	return rec, nil
}

// State reads the PCR and the log for display, changing neither. With an [UnexpectedError] the Status is still filled in.
func (r *Register) State(ctx context.Context) (Status, error) {
	return run(ctx, r, r.status)
}

// run calls op while it holds the register. An operation that outlives ctx goes on, and holds the register until it ends:
// only so are the TPM and the log not left apart by a client that hangs up.
func run[T any](ctx context.Context, r *Register, op func() (T, error)) (result T, err error) {
	if err := wait.Acquire(ctx, r.held); err != nil {
		return result, fmt.Errorf("%w: waiting for the register: %w", ErrBusy, err)
	}
	if ctx.Err() != nil {
		<-r.held
		return result, fmt.Errorf("%w: %w", ErrBusy, context.Cause(ctx))
	}
	type answer struct {
		result T
		err    error
	}
	done := make(chan answer, 1)
	go func() {
		defer func() { <-r.held }()
		result, err := op()
		done <- answer{result, err}
	}()
	select {
	case a := <-done:
		return a.result, a.err
	case <-ctx.Done():
		return result, fmt.Errorf("%w: waiting for the TPM: %w", ErrBusy, context.Cause(ctx))
	}
}

func (r *Register) status() (Status, error) {
	s := Status{Backend: "vtpm", Device: r.cfg.Device, PCR: r.cfg.PCR, Log: r.cfg.Log, State: "unexpected"}
	p, err := r.cfg.openPCR(nil)
	if err != nil {
		return s, err
	}
	defer p.tpm.Close()
	log, err := eventlog.View(r.cfg.Log)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, logError(err)
	}
	view := logView{}
	if log != nil {
		defer log.Close()
		view = r.cfg.view(log)
	}
	values, counter, err := p.read()
	if err != nil {
		return s, err
	}
	s.Banks, s.Values, s.Value, s.UpdateCounter = p.names(), map[string]string{}, values["sha256"].String(), counter
	for bank, v := range values {
		s.Values[bank] = v.String()
	}
	keep, state, err := judge(&r.cfg, values, view)
	if err != nil {
		return s, err
	}
	s.State, s.Seq = string(state), uint64(keep)
	if keep > 0 {
		c := view.records[keep-1].Content
		s.Digest, s.EventType, s.Verified = c.SHA256.String(), c.EventType, c.Verified
	}
	return s, nil
}

// event returns what a record states.
func event(rec eventlog.Record) Event {
	c := rec.Content
	return Event{Type: c.EventType, Binding: c.Binding, Text: c.Event, Alg: c.Alg, Digest: bytes.Clone(c.Digest()), Len: c.Len}
}
