// SPDX-License-Identifier: Apache-2.0

package measure_test

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"portcullis/measure"
	"portcullis/measure/eventlog"
)

// TestStateTable goes through the table in the package comment, a row at a time, on a real swtpm.
func TestStateTable(t *testing.T) {
	ctx := t.Context()
	d := sha256.Sum256([]byte(text))
	must := func(t *testing.T, r *measure.Register, text string) {
		t.Helper()
		if _, err := r.Measure(ctx, policy(text)); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name    string
		prepare func(t *testing.T, b *bench)
		config  func(*measure.Config)
		update  bool
		state   measure.State // of Resume before; "" when Resume fails too
		reason  string        // of Measure; "" when it succeeds
		texts   []string      // measured in the end, in every bank; nil: only sha256 is checked, by value
		events  int
	}{
		{name: "zero and empty log is extended once", state: measure.Empty, texts: []string{text}, events: 1},
		{name: "zero and empty log but another unit should have extended is refused", config: preextended,
			reason: "pcr-unexpected", texts: []string{}},
		{name: "zero with events in the log is refused", reason: "pcr-unexpected", texts: []string{}, events: -1,
			prepare: func(t *testing.T, b *bench) {
				must(t, b.register(nil), text)
				if err := b.tpm.Restart(); err != nil {
					t.Fatal(err)
				}
			}},
		{name: "extended by another unit as expected is verified and not extended", config: preextended,
			state: measure.Preextended, events: 1, prepare: func(t *testing.T, b *bench) { b.foreign(d[:]) }},
		{name: "extended by another unit by surprise is refused", reason: "pcr-unexpected", events: -1,
			prepare: func(t *testing.T, b *bench) { b.foreign(d[:]) }},
		{name: "another unit extended another digest is refused", config: preextended, state: measure.Preextended,
			reason: "pcr-unexpected", events: -1, prepare: func(t *testing.T, b *bench) { b.foreign(make([]byte, 32)) }},
		{name: "another unit extended all banks as we would is verified", config: preextended, state: measure.Preextended,
			texts: []string{text}, events: 1, prepare: func(t *testing.T, b *bench) {
				sha384 := sha512.Sum384(d[:])
				sha1, sha512 := sha1.Sum(d[:]), sha512.Sum512(d[:])
				b.foreign(d[:])
				b.foreignBank(tpm2.TPMAlgSHA1, sha1[:])
				b.foreignBank(tpm2.TPMAlgSHA384, sha384[:])
				b.foreignBank(tpm2.TPMAlgSHA512, sha512[:])
			}},
		{name: "another unit extended another bank by something else is refused", config: preextended, state: measure.Preextended,
			reason: "pcr-unexpected", events: -1, prepare: func(t *testing.T, b *bench) {
				b.foreign(d[:])
				b.foreignBank(tpm2.TPMAlgSHA384, make([]byte, 48))
			}},
		{name: "another bank extended by surprise is refused", reason: "pcr-unexpected", events: -1,
			prepare: func(t *testing.T, b *bench) { b.foreignBank(tpm2.TPMAlgSHA384, make([]byte, 48)) }},
		{name: "another unit extended twice is refused", config: preextended, state: measure.Preextended, reason: "pcr-unexpected",
			events: -1, prepare: func(t *testing.T, b *bench) { b.foreign(d[:]); b.foreign(d[:]) }},
		{name: "restart with the same digest extends nothing", state: measure.Measured, texts: []string{text}, events: 1,
			prepare: func(t *testing.T, b *bench) { must(t, b.register(nil), text) }},
		{name: "restart with another digest is refused", state: measure.Measured, reason: "already-set", texts: []string{text2}, events: 1,
			prepare: func(t *testing.T, b *bench) { must(t, b.register(nil), text2) }},
		{name: "restart after another unit extended extends nothing", config: preextended, state: measure.Measured, events: 1,
			prepare: func(t *testing.T, b *bench) { b.foreign(d[:]); must(t, b.register(preextended), text) }},
		{name: "update extends onto the first", update: true, state: measure.Measured, texts: []string{text2, text}, events: 2,
			prepare: func(t *testing.T, b *bench) { must(t, b.register(nil), text2) }},
		{name: "restart after updates continues", state: measure.Measured, texts: []string{text2, text}, events: 2,
			prepare: func(t *testing.T, b *bench) {
				must(t, b.register(nil), text2)
				if _, err := b.register(nil).Update(ctx, policy(text)); err != nil {
					t.Fatal(err)
				}
			}},
		{name: "a foreign extend after ours is refused", reason: "pcr-unexpected", events: -1,
			prepare: func(t *testing.T, b *bench) { must(t, b.register(nil), text); b.foreign(d[:]) }},
		{name: "a vanished log is refused", reason: "pcr-unexpected", texts: []string{text}, events: -1,
			prepare: func(t *testing.T, b *bench) { must(t, b.register(nil), text); os.Remove(b.log) }},
		{name: "a log of another boot is refused", reason: "pcr-unexpected", texts: []string{text}, events: -1,
			config:  func(c *measure.Config) { c.BootID = other },
			prepare: func(t *testing.T, b *bench) { must(t, b.register(nil), text) }},
		{name: "a malformed log is refused", reason: "log-failed", texts: []string{}, events: -1,
			prepare: func(t *testing.T, b *bench) { os.WriteFile(b.log, []byte("\x1e{}\n"), 0o600) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			if tt.prepare != nil {
				tt.prepare(t, b)
			}
			before := b.pcr()
			r := b.register(tt.config)
			standing, err := r.Resume(ctx)
			if (tt.state == "") != (err != nil) || standing.State != tt.state {
				t.Errorf("Resume = %q, %v; want %q", standing.State, err, tt.state)
			}
			if err != nil && measure.Reason(err) != tt.reason {
				t.Errorf("Resume fails with reason %s, want %s", measure.Reason(err), tt.reason)
			}
			do := r.Measure
			if tt.update {
				do = r.Update
			}
			rec, err := do(ctx, policy(text))
			if measure.Reason(err) != tt.reason {
				t.Errorf("Measure = %v (reason %s), want reason %q", err, measure.Reason(err), tt.reason)
			}
			if err == nil && rec.Content.SHA256.String() != fmt.Sprintf("%x", d) {
				t.Errorf("Measure returns the record of %s", rec.Content.SHA256)
			}
			if tt.reason != "" && fmt.Sprint(b.pcr()) != fmt.Sprint(before) {
				t.Errorf("refused, but the PCR went from %v to %v", before, b.pcr())
			}
			if tt.texts != nil {
				b.wantPCR(tt.texts...)
			} else if tt.reason == "" && b.pcr()["sha256"] != goldenX {
				t.Errorf("PCR 8 is %s, want %s", b.pcr()["sha256"], goldenX)
			}
			if tt.events >= 0 {
				b.wantLog(tt.events)
			}
		})
	}
}

func TestUnexpectedValueIsStated(t *testing.T) {
	b := newBench(t)
	b.foreign(make([]byte, 32))
	_, err := b.register(nil).Measure(t.Context(), policy(text))
	var u *measure.UnexpectedError
	if !errors.As(err, &u) || !errors.Is(err, measure.ErrUnexpected) {
		t.Fatalf("Measure = %v, want an UnexpectedError", err)
	}
	if got := b.pcr()["sha256"]; u.Got.String() != got || !strings.Contains(err.Error(), got) || strings.Contains(err.Error(), "\n") {
		t.Errorf("the error %q does not state the value %s on one line", err, got)
	}
}

func TestGoldenVector(t *testing.T) {
	b := newBench(t)
	rec, err := b.register(nil).Measure(t.Context(), policy(text))
	if err != nil {
		t.Fatal(err)
	}
	if got := b.pcr()["sha256"]; got != goldenX || rec.Content.Next.String() != goldenX {
		t.Errorf("PCR 8 is %s, the record says %s, want %s", got, rec.Content.Next, goldenX)
	}
	if rec.Content.Timestamp == 0 || rec.Content.BootID != boot || *rec.PCR != 8 || len(rec.Digests) != 4 {
		t.Errorf("record %+v", rec)
	}
}

func TestBanksAgreeWithTPM2Tools(t *testing.T) {
	b := newBench(t)
	if _, err := b.register(nil).Measure(t.Context(), policy(text)); err != nil {
		t.Fatal(err)
	}
	out, err := b.tpm.Tool(t.TempDir(), "tpm2_pcrread", "sha1:8+sha256:8+sha384:8+sha512:8")
	if err != nil {
		skip(t, err)
	}
	for bank, want := range extended(t, text) {
		if !strings.Contains(string(out), "0x"+strings.ToUpper(want)) {
			t.Errorf("tpm2_pcrread does not show %s in bank %s:\n%s", want, bank, out)
		}
	}
}

func TestStatusShowsRegisterAndLog(t *testing.T) {
	b := newBench(t)
	r := b.register(nil)
	s, err := r.State(t.Context())
	if err != nil || s.State != string(measure.Empty) || s.Seq != 0 || s.Value != strings.Repeat("0", 64) {
		t.Errorf("State before = %+v, %v", s, err)
	}
	if _, err := os.Stat(b.log); !errors.Is(err, os.ErrNotExist) {
		t.Error("State created the log")
	}
	if _, err := r.Measure(t.Context(), policy(text)); err != nil {
		t.Fatal(err)
	}
	s, err = r.State(t.Context())
	if err != nil || s.State != string(measure.Measured) || s.Seq != 1 || s.Value != goldenX || len(s.Banks) != 4 || s.Log != b.log ||
		s.Digest != fmt.Sprintf("%x", policy(text).Digest) || s.PCR != 8 || s.Backend != "vtpm" {
		t.Errorf("State after = %+v, %v", s, err)
	}
	b.foreign(make([]byte, 32))
	s, err = r.State(t.Context())
	if !errors.Is(err, measure.ErrUnexpected) || s.State != "unexpected" || s.Value != b.pcr()["sha256"] {
		t.Errorf("State after a foreign extend = %+v, %v", s, err)
	}
}

func TestParallelCallersExtendOnce(t *testing.T) {
	const callers = 64
	tests := []struct {
		name string
		text func(i int) string
		wins int
	}{
		{"same policy", func(int) string { return text }, callers},
		{"different policies", func(i int) string { return fmt.Sprintf("%s# %d\n", text, i) }, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			// Two registers stand for two processes: they share the log's lock, not the mutex.
			registers := []*measure.Register{b.register(nil), b.register(nil)}
			errs, winner := make([]error, callers), ""
			var mu sync.Mutex
			var wg sync.WaitGroup
			for i := range callers {
				wg.Go(func() {
					_, errs[i] = registers[i%2].Measure(context.Background(), policy(tt.text(i)))
					if errs[i] == nil {
						mu.Lock()
						winner = tt.text(i)
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			wins := 0
			for _, err := range errs {
				if err == nil {
					wins++
				} else if !errors.Is(err, measure.ErrMeasured) {
					t.Errorf("a caller failed with %v", err)
				}
			}
			if wins != tt.wins {
				t.Errorf("%d callers succeeded, want %d", wins, tt.wins)
			}
			b.wantPCR(winner)
			b.wantLog(1)
		})
	}
}

func TestEventMustBeSHA256(t *testing.T) {
	b := newBench(t)
	for _, e := range []measure.Event{
		{Type: eventlog.Initdata, Binding: eventlog.Initdata, Alg: "sha384", Digest: make([]byte, 48)},
		{Type: eventlog.Policy, Binding: eventlog.Policy, Alg: "sha256", Digest: make([]byte, 31)},
		{Type: eventlog.Policy, Binding: eventlog.Policy, Alg: "sha256"},
	} {
		if _, err := b.register(nil).Measure(t.Context(), e); !errors.Is(err, measure.ErrEvent) {
			t.Errorf("Measure(%s of %d bytes) = %v, want ErrEvent", e.Alg, len(e.Digest), err)
		}
	}
	b.wantPCR()
}

// BenchmarkMeasure is one first measurement: banks, read, log, extend, read back, commit.
func BenchmarkMeasure(b *testing.B) {
	bench := newBench(b)
	for i := range b.N {
		b.StopTimer()
		if err := errors.Join(bench.tpm.Restart(), os.RemoveAll(bench.log)); err != nil {
			b.Fatal(err)
		}
		r := bench.register(nil)
		if _, err := r.Resume(b.Context()); err != nil { // also waits for swtpm to be up
			b.Fatal(err)
		}
		b.StartTimer()
		if _, err := r.Measure(b.Context(), policy(fmt.Sprint(i))); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMeasureAgain is SetPolicy with the policy that is already bound.
func BenchmarkMeasureAgain(b *testing.B) {
	bench := newBench(b)
	r := bench.register(nil)
	for b.Loop() {
		if _, err := r.Measure(b.Context(), policy(text)); err != nil {
			b.Fatal(err)
		}
	}
}
