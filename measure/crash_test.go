// SPDX-License-Identifier: Apache-2.0

package measure_test

import (
	"crypto/sha256"
	"errors"
	"os"
	"testing"

	"portcullis/measure"
)

// TestKill kills the process with SIGKILL after each step and lets another one go on, with the same policy and with a
// different one: there is exactly one extend, and the state the table asks for.
func TestKill(t *testing.T) {
	d := sha256.Sum256([]byte(text))
	for step := measure.StepRead; step <= measure.StepCommitted; step++ {
		survives := step >= measure.StepExtended // the digest reached the register
		t.Run("first measurement, then the same, killed when "+step.String(), func(t *testing.T) {
			b := newBench(t)
			child{Device: b.tpm.Device(), Log: b.log, Text: text, Step: step}.killed(t)
			b.resumes(survives, text)
			if _, err := b.register(nil).Measure(t.Context(), policy(text)); err != nil {
				t.Fatal(err)
			}
			b.wantPCR(text)
			b.wantLog(1)
		})
		t.Run("first measurement, then another, killed when "+step.String(), func(t *testing.T) {
			b := newBench(t)
			child{Device: b.tpm.Device(), Log: b.log, Text: text, Step: step}.killed(t)
			_, err := b.register(nil).Measure(t.Context(), policy(text2))
			if survives != errors.Is(err, measure.ErrMeasured) || !survives && err != nil {
				t.Errorf("another policy after the kill: %v", err)
			}
			if survives {
				b.wantPCR(text)
			} else {
				b.wantPCR(text2)
			}
			if survives {
				b.resumes(true, text)
			}
			b.wantLog(1)
		})
		t.Run("update, killed when "+step.String(), func(t *testing.T) {
			b := newBench(t)
			if _, err := b.register(nil).Measure(t.Context(), policy(text2)); err != nil {
				t.Fatal(err)
			}
			child{Device: b.tpm.Device(), Log: b.log, Text: text, Step: step, Update: true}.killed(t)
			if survives {
				b.resumes(true, text)
			} else {
				b.resumes(true, text2)
			}
			if _, err := b.register(nil).Update(t.Context(), policy(text)); err != nil {
				t.Fatal(err)
			}
			b.wantPCR(text2, text)
			b.wantLog(2)
		})
	}
	for _, step := range []measure.Step{measure.StepRead, measure.StepMarked, measure.StepLogged, measure.StepCommitted} {
		t.Run("verification of another unit's extend, killed when "+step.String(), func(t *testing.T) {
			b := newBench(t)
			b.foreign(d[:])
			child{Device: b.tpm.Device(), Log: b.log, Text: text, Step: step, Preextended: true}.killed(t)
			rec, err := b.register(preextended).Measure(t.Context(), policy(text))
			if err != nil {
				t.Fatal(err)
			}
			if !rec.Content.Verified || b.pcr()["sha256"] != goldenX {
				t.Errorf("record %+v, PCR %s", rec, b.pcr()["sha256"])
			}
			b.wantLog(1)
		})
	}
}

// resumes checks what a new process finds.
func (b *bench) resumes(measured bool, text string) {
	b.t.Helper()
	s, err := b.register(nil).Resume(b.t.Context())
	switch {
	case err != nil:
		b.t.Fatal(err)
	case !measured && s.State != measure.Empty:
		b.t.Errorf("Resume after the kill says %+v, want empty", s)
	case measured && (s.State != measure.Measured || string(s.Event.Digest) != string(policy(text).Digest)):
		b.t.Errorf("Resume after the kill says %+v, want measured %q", s, text)
	}
}

// TestCutRecord: the kernel may have written any part of the record when the process died.
func TestCutRecord(t *testing.T) {
	b := newBench(t)
	if _, err := b.register(nil).Measure(t.Context(), policy(text)); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(b.log)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.tpm.Restart(); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 2, len(whole) / 2, len(whole) - 1} {
		if err := os.WriteFile(b.log, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			if _, err := b.register(nil).Resume(t.Context()); measure.Reason(err) != "log-failed" {
				t.Errorf("unmarked log cut at %d: %v, want a refusal", n, err)
			}
		}
		if err := os.Chmod(b.log, 0o600|os.ModeSticky); err != nil {
			t.Fatal(err)
		}
		if s, err := b.register(nil).State(t.Context()); err != nil || s.State != string(measure.Empty) {
			t.Errorf("marked log cut at %d: State = %+v, %v", n, s, err)
		}
		b.resumes(false, "")
		b.wantLog(0)
	}
	if _, err := b.register(nil).Measure(t.Context(), policy(text)); err != nil {
		t.Fatal(err)
	}
	b.wantPCR(text)
	b.wantLog(1)
}
