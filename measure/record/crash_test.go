// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"portcullis/internal/measuretest"
	"portcullis/measure"
	"portcullis/measure/eventlog"
	"portcullis/measure/record"
)

// TestKilledAtEveryStepOfEveryKind: whoever goes on extends each fact once, and log and register agree.
func TestKilledAtEveryStepOfEveryKind(t *testing.T) {
	kinds := strings.Fields(wholeLife)
	for i, kind := range kinds {
		for step := measure.StepRead; step <= measure.StepCommitted; step++ {
			t.Run(fmt.Sprintf("%d %s, killed when %s", i+1, kind, step), func(t *testing.T) {
				t.Parallel()
				b := newBench(t)
				b.killed(i+1, step)
				book := b.open() // which repairs
				want := kinds[:i]
				if step >= measure.StepExtended {
					want = kinds[:i+1]
				}
				if got := b.agrees(); got != strings.Join(want, " ") {
					t.Errorf("after the kill: %s\nwant: %s", got, strings.Join(want, " "))
				}
				if err := live(book); err != nil {
					t.Fatal(err)
				}
				// The host asks the living process again for what the dead one had recorded, which it counts.
				if got := counted.Replace(b.agrees()); got != counted.Replace(wholeLife) {
					t.Errorf("in the end: %s\nwant: %s", got, counted.Replace(wholeLife))
				}
			})
		}
	}
}

// fill makes more happen than a record holds.
func fill(b *record.Book) error {
	for i := range 2 * record.MaxFacts {
		f := record.Fact{Kind: record.Exec, ID: id(2), Digest: record.ArgsDigest([]string{fmt.Sprint(i)})}
		if i == 0 {
			f = created(2, "web")
		}
		if err := b.Before(context.Background(), f); err != nil {
			return err
		}
	}
	return nil
}

// The last place of a full record is taken once too.
func TestKilledAtEveryStepOfTheLastPlace(t *testing.T) {
	for step := measure.StepRead; step <= measure.StepCommitted; step++ {
		t.Run(step.String(), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			measuretest.Killed(t, childVar, child{b.Device, b.Log, record.MaxFacts, step, true})
			book := b.open() // which repairs
			b.agrees()
			want := record.MaxFacts - 1
			if step >= measure.StepExtended {
				want++
			}
			if got := len(b.facts()); got != want {
				t.Errorf("after the kill: %d facts, want %d", got, want)
			}
			if err := fill(book); err != nil {
				t.Fatal(err)
			}
			b.agrees()
			facts := b.facts()
			if len(facts) != record.MaxFacts || facts[len(facts)-1].Kind != record.More {
				t.Errorf("in the end: %d facts, the last is %s", len(facts), facts[len(facts)-1].Kind)
			}
		})
	}
}

// TestARecordInDoubtOfTheOtherRegister: a process died in the measurement of a policy; the pod's register settles that first, and the
// policy's does the same for the pod's.
func TestARecordInDoubtOfTheOtherRegister(t *testing.T) {
	b := newBench(t)
	policies, err := measure.New(measure.Config{Device: b.Device, PCR: 8, Log: b.Log, BootID: boot})
	if err != nil {
		t.Fatal(err)
	}
	digest, other := sha256.Sum256([]byte("a")), sha256.Sum256([]byte("b"))
	event := func(d [32]byte) measure.Event {
		return measure.Event{Type: eventlog.Policy, Binding: eventlog.Policy, Alg: "sha256", Digest: d[:], Len: 1}
	}
	if _, err := policies.Measure(t.Context(), event(digest)); err != nil {
		t.Fatal(err)
	}
	mark := func() { // as the dead process had it
		if err := os.Chmod(b.Log, 0o600|os.ModeSticky); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(b.Log)
	if err != nil {
		t.Fatal(err)
	}
	mark()
	book := b.open() // the policy is in its register
	if err := book.Before(t.Context(), setPolicy); err != nil {
		t.Fatal(err)
	}
	if now, err := os.ReadFile(b.Log); err != nil || !bytes.HasPrefix(now, whole) {
		t.Errorf("the policy's record was removed: %v", err)
	}
	b.unextended(event(other))
	if err := b.open().Before(t.Context(), record.Fact{Kind: record.Sandbox, ID: id(1)}); err != nil {
		t.Fatal(err)
	}
	if got := b.agrees(); got != "policy sandbox" {
		t.Error(got)
	}
	mark()
	if s, err := policies.Resume(t.Context()); err != nil || !bytes.Equal(s.Event.Digest, digest[:]) {
		t.Errorf("%+v, %v", s, err)
	}
	if got := b.agrees(); got != "policy sandbox" {
		t.Error(got)
	}
}

// unextended leaves a record of a policy in the log that its register has not, and the mark.
func (b *bench) unextended(e measure.Event) {
	b.t.Helper()
	log, err := eventlog.Open(b.Log)
	if err != nil {
		b.t.Fatal(err)
	}
	defer log.Close()
	policies, _ := eventlog.Split(log.Records())
	r := policies[len(policies)-1]
	r.Num = uint64(len(log.Records()))
	r.Content.Seq, r.Content.Prev = r.Num+1, r.Content.Next
	r.Content.SetDigest("sha256", e.Digest)
	digests := []eventlog.Digest{}
	for _, d := range r.Digests {
		value, err := eventlog.BankDigest(d.HashAlg, e.Digest)
		if err != nil {
			b.t.Fatal(err)
		}
		digests = append(digests, eventlog.Digest{HashAlg: d.HashAlg, Digest: value})
	}
	r.Digests = digests
	if r.Content.Next, err = eventlog.Extend("sha256", r.Content.Prev, e.Digest); err != nil {
		b.t.Fatal(err)
	}
	if err := errors.Join(log.Mark(), log.Append(r)); err != nil {
		b.t.Fatal(err)
	}
}
