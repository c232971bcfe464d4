// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bytes"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"portcullis/measure/eventlog"
)

// operation is one visit to the TPM and the log, both open and the log locked, repaired, and judged.
type operation struct {
	cfg     *Config
	pcr     *pcr
	log     *eventlog.File
	values  eventlog.Values
	counter uint32
	state   State
}

// settled is where an operation of this process left register and log. The next event of the pod goes on from there without
// reading the register first: what another program has extended since then shows when the register is read back.
type settled struct {
	banks   []tpm2.TPMAlgID // of the register; empty: nothing is settled
	records int             // in the log
	values  eventlog.Values
	counter uint32
}

// begin opens the TPM and the log and repairs what a dead process left between them.
func (r *Register) begin() (*operation, error) {
	at := r.settled
	r.settled = settled{}
	p, err := r.cfg.openPCR(at.banks)
	if err != nil {
		return nil, err
	}
	log, err := eventlog.OpenKnown(r.cfg.Log, &r.known)
	if err != nil {
		p.tpm.Close()
		return nil, logError(err)
	}
	op := &operation{cfg: &r.cfg, pcr: p, log: log}
	if at.banks != nil && !log.Marked() && len(log.Records()) == at.records {
		op.values, op.counter, op.state = at.values, at.counter, Measured
		return op, nil
	}
	if err := op.reconcile(); err != nil {
		op.end()
		return nil, err
	}
	return op, nil
}

func (op *operation) end() {
	op.log.Close()
	op.pcr.tpm.Close()
}

func (op *operation) reconcile() (err error) {
	if op.values, op.counter, err = op.pcr.read(); err != nil {
		return err
	}
	if err := op.reconcileOther(); err != nil {
		return err
	}
	view := op.cfg.view(op.log)
	keep, state, err := judge(op.cfg, op.values, view)
	if err != nil {
		return err
	}
	op.state = state
	if op.log.Marked() {
		if err := op.log.Keep(len(op.log.Records()) - len(view.records) + keep); err != nil {
			return logError(err)
		}
	}
	return nil
}

// reconcileOther repairs the log where the record in doubt is of the other register: this one's records may come behind it only when
// that one's are settled.
func (op *operation) reconcileOther() error {
	records := op.log.Records()
	if !op.log.Marked() || op.cfg.view(op.log).marked {
		return nil
	}
	pcr := records[len(records)-1].PCR
	if pcr == nil { // nothing was to be extended
		return op.keep(len(records))
	}
	other := Config{PCR: *pcr, Pod: !op.cfg.Pod, BootID: op.cfg.BootID}
	values, _, err := op.pcr.of(*pcr).read()
	if err != nil {
		return err
	}
	view := other.view(op.log)
	keep, _, err := judge(&other, values, view)
	if err != nil {
		return err
	}
	return op.keep(len(records) - len(view.records) + keep)
}

func (op *operation) keep(n int) error {
	if err := op.log.Keep(n); err != nil {
		return logError(err)
	}
	return nil
}

func (op *operation) standing() Standing {
	s := Standing{State: op.state}
	if rec := op.latest(); rec != nil {
		e := event(*rec)
		s.Event, s.Record = &e, rec
	}
	return s
}

func (op *operation) latest() *eventlog.Record {
	records := op.log.Records()
	for i := len(records) - 1; i >= 0; i-- {
		if (records[i].Content.EventType == eventlog.Pod) == op.cfg.Pod {
			return &records[i]
		}
	}
	return nil
}

func (op *operation) notPreextended() error {
	return unexpected(op.cfg.PCR, op.values, nil,
		"expect_preextended is set and nothing was extended: the unit that extends first failed")
}

// measure applies the state table to one event.
func (op *operation) measure(e Event, replace func(latest Event) error) (eventlog.Record, error) {
	switch op.state {
	case Measured:
		latest := op.latest()
		if bytes.Equal(latest.Content.SHA256, e.Digest) {
			return *latest, nil
		}
		if err := replace(event(*latest)); err != nil {
			return eventlog.Record{}, err
		}
	case Preextended:
		return op.verified(e)
	default:
		if op.cfg.ExpectPreextended {
			return eventlog.Record{}, op.notPreextended()
		}
	}
	return op.extend(e)
}

// verified logs what another unit extended.
func (op *operation) verified(e Event) (eventlog.Record, error) {
	digests, err := judgePreextended(op.pcr, op.values, e.Digest)
	if err != nil {
		return eventlog.Record{}, err
	}
	rec := op.record(e, digests)
	rec.Content.Prev, rec.Content.Next = make(eventlog.Hex, 32), op.values["sha256"]
	rec.Content.Verified = true
	if err := op.write(rec); err != nil {
		return eventlog.Record{}, err
	}
	return rec, op.commit()
}

// extend is the one place where the PCR is changed: record, extend, read back, commit.
func (op *operation) extend(e Event) (eventlog.Record, error) {
	digests, err := op.pcr.digests(e)
	if err != nil {
		return eventlog.Record{}, err
	}
	want := eventlog.Values{}
	for _, d := range digests {
		if want[d.HashAlg], err = eventlog.Extend(d.HashAlg, op.values[d.HashAlg], d.Digest); err != nil {
			return eventlog.Record{}, err
		}
	}
	rec := op.record(e, digests)
	rec.Content.Prev, rec.Content.Next = op.values["sha256"], want["sha256"]
	if err := op.write(rec); err != nil {
		return eventlog.Record{}, err
	}
	failure := op.pcr.extend(digests)
	op.cfg.OnStep(StepExtended)
	if err := op.readBack(want, failure); err != nil {
		return eventlog.Record{}, err
	}
	op.cfg.OnStep(StepVerified)
	return rec, op.commit()
}

// readBack decides by the PCR whether it was extended, whatever the TPM answered: an answer can get lost. When the PCR is as
// before, the record is taken back; when it is anything else, the record and its mark stay for the next one to judge.
func (op *operation) readBack(want eventlog.Values, failure error) error {
	values, counter, err := op.pcr.read()
	switch {
	case err != nil:
		return fmt.Errorf("%w: its value is unknown: %w", ErrExtend, also(err, failure))
	case values.Equal(want) && counter != op.counter:
		op.values, op.counter = values, counter
		return nil
	case values.Equal(op.values) && failure != nil:
		err := fmt.Errorf("%w: %w", ErrExtend, failure)
		return also(err, op.log.Keep(len(op.log.Records())-1))
	}
	return unexpected(op.cfg.PCR, values, want, "another program extended this PCR at the same time")
}

func (op *operation) record(e Event, digests []eventlog.Digest) eventlog.Record {
	rec := newRecord(len(op.log.Records()), e, op.cfg.BootID, op.cfg.Boottime())
	index := op.cfg.PCR
	rec.PCR, rec.Digests = &index, digests
	return rec
}

// newRecord returns a record with what all backends have in common.
func newRecord(num int, e Event, bootID string, boottime uint64) eventlog.Record {
	rec := eventlog.Record{Num: uint64(num), ContentType: eventlog.ContentType, Content: eventlog.Content{
		EventType: e.Type, Binding: e.Binding, Event: e.Text, Len: e.Len, Seq: uint64(num) + 1, BootID: bootID, Timestamp: boottime,
	}}
	rec.Content.SetDigest(e.Alg, bytes.Clone(e.Digest))
	return rec
}

// write marks the log and makes the record durable.
func (op *operation) write(rec eventlog.Record) error {
	if err := op.log.Mark(); err != nil {
		return logError(err)
	}
	op.cfg.OnStep(StepMarked)
	if err := op.log.Append(rec); err != nil {
		return logError(also(err, op.log.Commit()))
	}
	op.cfg.OnStep(StepLogged)
	return nil
}

func (op *operation) commit() error {
	if err := op.log.Commit(); err != nil {
		return logError(err)
	}
	op.cfg.OnStep(StepCommitted)
	return nil
}
