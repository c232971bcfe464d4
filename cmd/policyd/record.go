// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"

	"portcullis/engine/binding"
	"portcullis/measure"
	"portcullis/measure/eventlog"
	"portcullis/measure/record"
)

type measureConfig struct {
	Pod    string `toml:"pod"`     // off, or pcr: every fact of the pod's life is measured
	PodPCR int    `toml:"pod_pcr"` // that they are extended into
	TCG2   string `toml:"tcg2"`    // file for the same events as the attestation agent writes its own; empty: none
}

func (c *config) validateMeasure() error {
	m := c.Measure
	switch {
	case m.Pod == "off":
		return nil
	case m.PodPCR < 9 || m.PodPCR > 15:
		return fmt.Errorf("measure.pod_pcr = %d: want 9 to 15, such as 14", m.PodPCR)
	case m.PodPCR == c.Binding.VTPM.PCR:
		return fmt.Errorf("measure.pod_pcr = %d: the policy is bound by that register; use another, such as 14", m.PodPCR)
	case len(c.Gate.Listen) == 0:
		return fmt.Errorf("measure.pod = %q: only the gate sees a pod's life, and gate.listen is empty", m.Pod)
	}
	return nil
}

// chooseRecord finds what the launch record is bound by: a register, else on SNP and TDX a key of the guest. Where nothing can
// bind it, there is none, unless the guest must be bound.
func (b *binder) chooseRecord(context.Context) error {
	if b.measure.Pod != "pcr" {
		return nil
	}
	config := measure.Config{Device: b.config.VTPM.Device, PCR: uint32(b.measure.PodPCR), Pod: true,
		Log: b.events, BootID: b.bootID, OnStep: b.guest.onPodStep, Dial: b.guest.dial}
	var err error
	switch {
	case b.out.Register != nil || b.config.VTPM.Trust != "" && b.hasTPM():
		b.record, err = measure.New(config)
		b.recordPCR = config.PCR
	case b.out.Field != nil:
		b.record, err = measure.NewChain(config)
	case b.mustBind():
		return refused(binding.CodeNoBackend, "measure.pod is pcr, and there is no register to take the record: a TPM, or set measure.pod = off")
	default:
		b.log.Warn("the pod's life is not recorded: there is no register and no TEE", "measure.pod", b.measure.Pod)
	}
	if err != nil {
		return refused(binding.CodeNoBackend, "%w", err)
	}
	return nil
}

// openRecord opens the launch record, if there is something that it is bound by. A guest that must be bound stays closed without it.
func (d *policyDaemon) openRecord(ctx context.Context, b *binder) {
	if b.record == nil || b.out.Denied != nil {
		return
	}
	onFact, err := d.tcg2Writer()
	if err == nil {
		d.book, err = record.Open(ctx, b.record, func(ctx context.Context) bool { return d.chain.PodComplete(ctx) }, onFact)
	}
	if err == nil && b.recordPCR == 0 {
		d.recordKey, err = openRecordKey(d.config.runDir())
	}
	d.recordPCR = b.recordPCR
	switch {
	case err == nil:
		b.out.Record = d.recorder(b.out.Register != nil)
	case b.out.Open:
		d.book = nil
		d.log.Warn("the pod's life is not recorded", "error", err)
	default:
		d.book = nil
		code := binding.Code(measure.Reason(err))
		b.out.Denied = &binding.Error{Code: code, Err: fmt.Errorf("measure.pod is pcr: %w", err)}
	}
}

// recorder takes policies and fragments into the record. One that has come to its end says nothing more, so that without a register
// nobody would see a fragment.
func (d *policyDaemon) recorder(register bool) func(context.Context, record.Fact) error {
	return func(ctx context.Context, f record.Fact) error {
		err := d.book.Before(ctx, f)
		if err == nil && f.Kind == record.Fragment && !register && d.book.State().Full {
			return fmt.Errorf("the launch record is full, and nothing else could show a fragment")
		}
		return err
	}
}

// tcg2Writer returns what writes each record into the configured file too, from the first; nil without one. The file is a copy for
// others to read: policyd reads the event log.
func (d *policyDaemon) tcg2Writer() (func(eventlog.Record), error) {
	if d.config.Measure.TCG2 == "" {
		return nil, nil
	}
	f, err := os.OpenFile(d.config.Measure.TCG2, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open measure.tcg2: %w", err)
	}
	d.closers = append(d.closers, f)
	return func(r eventlog.Record) {
		if _, err := f.Write(eventlog.TCG2(r)); err != nil {
			d.log.Error("measure.tcg2 lacks an event", "error", err)
		}
	}, nil
}
