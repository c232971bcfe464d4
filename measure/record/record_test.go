// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/measure"
	"portcullis/measure/eventlog"
	"portcullis/measure/record"
)

func id(n int) string { return strings.Repeat(fmt.Sprintf("%02x", n), 32) }

var (
	setPolicy = record.Fact{Kind: record.Policy, Binding: "policy", Alg: "sha256", Digest: strings.Repeat("ab", 32)}
	probe     = record.Fact{Kind: record.Exec, ID: id(2), Digest: record.ArgsDigest([]string{"cat", "/tmp/healthy"})}
)

func created(n int, name string) record.Fact {
	return record.Fact{Kind: record.Created, ID: id(n), Name: name, Image: "registry.example/" + name + ":1"}
}

func of(kind record.Kind, n int) record.Fact { return record.Fact{Kind: kind, ID: id(n)} }

func code(n int32) *int32 { return &n }

// live is a pod's life with every kind of fact in it but more, which fill has. It may be asked again from its beginning, as a
// host does of a policyd that was killed.
func live(b *record.Book) error {
	ctx := context.Background()
	before := func(f record.Fact) error { return b.Before(ctx, f) }
	happened := func(f record.Fact) error { return b.Happened(ctx, f) }
	steps := []func() error{
		func() error { return before(setPolicy) },
		func() error { return before(record.Fact{Kind: record.Sandbox, ID: id(1)}) },
		func() error { return before(created(1, "$sandbox")) },
		func() error { return before(of(record.Started, 1)) },
		func() error { return before(created(3, "web")) },
		func() error { return b.Refused(ctx, created(3, "web")) },
		func() error { return before(created(2, "web")) },
		func() error { return before(of(record.Started, 2)) },
		func() error { return b.Settle(ctx) },
		func() error { return before(probe) },
		func() error { return before(probe) },
		func() error { return before(record.Fact{Kind: record.Signalled, ID: id(2), Signal: 15}) },
		func() error { return happened(record.Fact{Kind: record.Ended, ID: id(2), Code: code(143)}) },
		func() error { return before(of(record.Removed, 2)) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

const wholeLife = "policy sandbox created started created failed created started complete exec signalled broken repeated ended removed"

// counted leaves out the counts.
var counted = strings.NewReplacer("repeated ", "")

// A failed creation and an open count come between; web is complete because the refused one has the same name.
func TestAPodsLife(t *testing.T) {
	for name, b := range map[string]*bench{"register": newBench(t), "chain": newChain(t)} {
		t.Run(name, func(t *testing.T) {
			book := b.open()
			if err := live(book); err != nil {
				t.Fatal(err)
			}
			if got := b.agrees(); got != wholeLife {
				t.Errorf("facts %s\nwant  %s", got, wholeLife)
			}
			s := book.State()
			if s.Complete || s.Broken != "web" || s.Events != 15 || s.Policy != setPolicy.Digest {
				t.Errorf("%+v", s)
			}
			if diff := cmp.Diff(s, b.open().State()); diff != "" {
				t.Errorf("a process that is started again knows another state (-before +after):\n%s", diff)
			}
			if err := live(b.open()); err != nil {
				t.Fatal(err)
			}
			if got := b.agrees(); got != wholeLife {
				t.Errorf("the same once more makes %s", got)
			}
		})
	}
}

// TestGoldenRecord: tpm2-tools come to the same register from the texts alone.
func TestGoldenRecord(t *testing.T) {
	b := newBench(t)
	if err := live(b.open()); err != nil {
		t.Fatal(err)
	}
	want := b.pcr14()
	other := newBench(t)
	for _, r := range b.records() {
		n := len(r.Content.Event)
		data := append([]byte{'L', 'E', 'A', 'A', byte(n), byte(n >> 8), 0, 0}, r.Content.Event...)
		if err := os.WriteFile(other.Log, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := other.tpm.Tool(t.TempDir(), "tpm2_pcrevent", "14", other.Log); err != nil {
			t.Fatalf("tpm2_pcrevent: %v: %s", err, out)
		}
	}
	if got := other.pcr14(); got != want {
		t.Errorf("tpm2_pcrevent leads to %s, the record to %s", got, want)
	}
}

// TestDigestOfTheDocumentedEvent is the vector of the attestation agent's event log.
func TestDigestOfTheDocumentedEvent(t *testing.T) {
	got, err := eventlog.TextDigest("sha256", "domain operation content")
	if err != nil {
		t.Fatal(err)
	}
	if want := "46df8dacf00a07d34a83cdf56d7978697790787cf2ba1432ef7c38f22cd96351"; hex.EncodeToString(got) != want {
		t.Errorf("%x, want %s", got, want)
	}
}

// TestTCG2 holds an entry to the layout of TCG_PCR_EVENT2.
func TestTCG2(t *testing.T) {
	b := newBench(t)
	if err := b.open().Before(t.Context(), record.Fact{Kind: record.Sandbox, ID: id(1)}); err != nil {
		t.Fatal(err)
	}
	r := b.records()[0]
	text := `portcullis sandbox {"id":"` + id(1) + `"}`
	want := "\x0e\x00\x00\x00" + "\x06\x00\x00\x00" + "\x01\x00\x00\x00" + "\x0b\x00" + string(r.Content.SHA256) +
		string([]byte{byte(len(text) + 8)}) + "\x00\x00\x00" + "LEAA" + string([]byte{byte(len(text))}) + "\x00\x00\x00" + text
	if got := eventlog.TCG2(r); string(got) != want {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}

func TestARecordIsBounded(t *testing.T) {
	b := newChain(t)
	book := b.open()
	if err := book.Before(t.Context(), created(1, "web")); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * record.MaxFacts {
		f := record.Fact{Kind: record.Exec, ID: id(1), Digest: record.ArgsDigest([]string{fmt.Sprint(i)})}
		if err := book.Before(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	facts := b.facts()
	if len(facts) != record.MaxFacts || facts[len(facts)-1].Kind != record.More {
		t.Errorf("%d facts, the last is %s", len(facts), facts[len(facts)-1].Kind)
	}
	if err := book.Settle(t.Context()); err != nil || book.State().Complete || !book.State().Full {
		t.Errorf("%v, %+v", err, book.State())
	}
}

// TestProbesThatRepeatAreOneEvent, with a count when their container ends.
func TestProbesThatRepeatAreOneEvent(t *testing.T) {
	b := newChain(t)
	book := b.open()
	for _, f := range []record.Fact{created(2, "web"), of(record.Started, 2)} {
		if err := book.Before(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	for range 1000 {
		if err := book.Before(t.Context(), probe); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.agrees(); got != "created started exec" {
		t.Error(got)
	}
	if err := book.Happened(t.Context(), record.Fact{Kind: record.Ended, ID: id(2), Code: code(0)}); err != nil {
		t.Fatal(err)
	}
	if f := b.facts()[3]; f.Kind != record.Repeated || f.Count != 999 || f.Digest != probe.Digest || f.Of != record.Exec {
		t.Errorf("%+v", f)
	}
}

// fickle is a writer that fails while down is set.
type fickle struct {
	record.Writer
	down bool
}

func (f *fickle) Update(ctx context.Context, e measure.Event) (eventlog.Record, error) {
	if f.down {
		return eventlog.Record{}, errors.New("out of order")
	}
	return f.Writer.Update(ctx, e)
}

// TestNothingHappensBeforeItIsRecorded: what cannot be recorded must not be, and what has happened all the same comes first.
func TestNothingHappensBeforeItIsRecorded(t *testing.T) {
	b := newChain(t)
	w, err := writer("", b.Log, nil)
	if err != nil {
		t.Fatal(err)
	}
	f := &fickle{Writer: w}
	book, err := record.Open(t.Context(), f, always, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, fact := range []record.Fact{created(2, "web"), of(record.Started, 2)} {
		if err := book.Before(t.Context(), fact); err != nil {
			t.Fatal(err)
		}
	}
	if err := book.Settle(t.Context()); err != nil || !book.State().Complete {
		t.Fatalf("%v, %+v", err, book.State())
	}
	f.down = true
	if err := book.Before(t.Context(), created(4, "other")); err == nil {
		t.Error("taken without a record")
	}
	ended := record.Fact{Kind: record.Ended, ID: id(2), Code: code(1)}
	for range 3 {
		if err := book.Happened(t.Context(), ended); err == nil {
			t.Error("recorded")
		}
	}
	if s := book.State(); s.Complete || !s.Behind {
		t.Errorf("%+v", s)
	}
	if err := book.Before(t.Context(), created(4, "other")); !errors.Is(err, record.ErrBehind) {
		t.Errorf("%v, want ErrBehind", err)
	}
	f.down = false
	if err := book.Before(t.Context(), created(4, "other")); err != nil {
		t.Fatal(err)
	}
	if got := b.agrees(); got != "created started complete ended broken created" {
		t.Error(got)
	}
}

// TestCompleteAgain: the containers that a complete pod had must all run again.
func TestCompleteAgain(t *testing.T) {
	b := newChain(t)
	book := b.open()
	before := func(facts ...record.Fact) {
		t.Helper()
		for _, f := range facts {
			if err := book.Before(t.Context(), f); err != nil {
				t.Fatal(err)
			}
		}
		if err := book.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ended := func(n int, c int32) {
		t.Helper()
		if err := book.Happened(t.Context(), record.Fact{Kind: record.Ended, ID: id(n), Code: code(c)}); err != nil {
			t.Fatal(err)
		}
	}
	before(created(1, "init"), of(record.Started, 1), created(2, "web"))
	if book.State().Complete {
		t.Error("complete before a container that was created has started")
	}
	ended(1, 0)
	before(of(record.Started, 2))
	if !book.State().Complete {
		t.Error("not complete after the init container succeeded")
	}
	ended(2, 0)
	if s := book.State(); s.Complete || s.Broken != "web" {
		t.Errorf("%+v", s)
	}
	before(created(3, "web"))
	if book.State().Complete {
		t.Error("complete before web has started again")
	}
	before(of(record.Started, 3))
	if s := book.State(); !s.Complete || s.Broken != "" {
		t.Errorf("%+v", s)
	}
}

func TestTextsAreCanonical(t *testing.T) {
	text, err := created(1, "web").Text()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := record.Parse(text); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "portcullis", "portcullis created", text + " ", strings.Replace(text, `"id"`, `"ID"`, 1),
		strings.Replace(text, "portcullis", "other", 1), strings.Replace(text, "created", "destroyed", 1), strings.Replace(text, `{`, `{"x":1,`, 1),
		`portcullis created {"name":"web","id":"00"}`} {
		if _, err := record.Parse(bad); !errors.Is(err, record.ErrFact) {
			t.Errorf("%q: %v, want ErrFact", bad, err)
		}
	}
	long := created(1, strings.Repeat("x", eventlog.MaxEvent))
	if _, err := long.Text(); !errors.Is(err, record.ErrFact) {
		t.Errorf("%v, want ErrFact", err)
	}
}

// TestOneFactCostsLittle prints what a fact costs on a software TPM, at the begin of a record and towards its end. The bound is far
// above what a quiet machine needs, for one that is not quiet: docs/performance.md has the figures.
func TestOneFactCostsLittle(t *testing.T) {
	b := newBench(t)
	if dir, err := os.MkdirTemp("/dev/shm", "record"); err == nil { // as /run is: in memory
		t.Cleanup(func() { os.RemoveAll(dir) })
		b.Log = dir + "/measure.jsonseq"
	}
	book := b.open()
	if err := book.Before(t.Context(), created(1, "web")); err != nil {
		t.Fatal(err)
	}
	var took []time.Duration
	for i := range record.MaxFacts - 10 {
		start := time.Now()
		if err := book.Before(t.Context(), record.Fact{Kind: record.Exec, ID: id(1), Digest: record.ArgsDigest([]string{fmt.Sprint(i)})}); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	median := func(d []time.Duration) time.Duration { return slices.Sorted(slices.Values(d))[len(d)/2] }
	first, last := median(took[:50]), median(took[len(took)-50:])
	t.Logf("median of one fact: %v among the first 50, %v among the last 50", first, last)
	if first > 50*time.Millisecond || last > 50*time.Millisecond {
		t.Errorf("a fact takes %v, towards the end of a record %v", first, last)
	}
}

// FuzzParse: what is read as a fact is written as the same text.
func FuzzParse(f *testing.F) {
	text, err := created(1, "web").Text()
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{text, "portcullis complete {}", `portcullis ended {"id":"0","code":-1}`, "portcullis  {}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		fact, err := record.Parse(text)
		if err != nil {
			return
		}
		if again, err := fact.Text(); err != nil || again != text {
			t.Errorf("%q is written as %q, %v", text, again, err)
		}
		pod := new(record.Pod)
		_ = pod.Apply(fact)
	})
}
