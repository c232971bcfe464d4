// SPDX-License-Identifier: Apache-2.0

package binding_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"portcullis/engine/binding"
	"portcullis/measure"
	"portcullis/measure/eventlog"
	"portcullis/measure/record"
)

// TestRestartGoesOnWithFragments: each is held against the policy once more, and the register against the latest.
func TestRestartGoesOnWithFragments(t *testing.T) {
	b, r := newBench(t), &register{}
	p := b.start(binding.Config{Register: r}, closedDefault, false)
	p.set(withIssuers(t, "app", "second"))
	p.set(toImage(t, 2, 2))
	p.set(signed(t, issuerKey, newImage("second", 4, 3)))
	p.allows("CreateContainerRequest", create(3))
	again := b.start(binding.Config{Register: r}, closedDefault, true)
	if again.startup != nil || again.state() != p.state() || r.extends != 3 {
		t.Errorf("%v, state %s, %d extends", again.startup, again.state(), r.extends)
	}
	again.refuses(toImage(t, 2, 4), binding.CodeFragmentRollback)
	for name, change := range map[string]func(path string) error{
		"changed": func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) },
		"gone":    os.Remove,
	} {
		files := fragmentFiles(t, b.dir)
		kept, err := os.ReadFile(files[0])
		if err != nil || len(files) != 2 {
			t.Fatal(files, err)
		}
		if err := change(files[0]); err != nil {
			t.Fatal(err)
		}
		lost := b.start(binding.Config{Register: r}, closedDefault, true)
		if lost.denies(binding.CodeStateLost); t.Failed() {
			t.Errorf("a fragment of the journal is %s", name)
		}
		if err := os.WriteFile(files[0], kept, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.digests = append(r.digests, digest("foreign"))
	b.start(binding.Config{Register: r}, closedDefault, true).denies(binding.CodeStateLost)
}

func fragmentFiles(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "fragment-") {
			out = append(out, dir+"/"+e.Name())
		}
	}
	return out
}

// moment is what a killed process leaves.
type moment struct {
	name    string
	dir     string
	digests [][]byte
}

// stepping is a register that remembers what was there at each step.
type stepping struct {
	*register
	before, after func()
}

func (s *stepping) Update(ctx context.Context, e measure.Event) (eventlog.Record, error) {
	s.before()
	out, err := s.register.Update(ctx, e)
	s.after()
	return out, err
}

// TestKilledAtEachStepOfAFragment: the next process has the policy that the register shows, without being told.
func TestKilledAtEachStepOfAFragment(t *testing.T) {
	b, r := newBench(t), &register{}
	var moments []moment
	at := func(name string) {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(b.dir)); err != nil {
			t.Error(err)
		}
		moments = append(moments, moment{name, dir, slices.Clone(r.digests)})
	}
	recorded := map[record.Fact]bool{}
	config := binding.Config{
		Register: &stepping{r, func() { at("proposed") }, func() { at("measured") }},
		Record: func(_ context.Context, f record.Fact) error {
			if recorded[f] = true; f.Kind == record.Fragment {
				at("recorded")
			}
			return nil
		},
	}
	p := b.start(config, closedDefault, false)
	p.set(withIssuers(t, "app"))
	p.set(toImage(t, 2, 2))
	at("before")
	update := toImage(t, 3, 3)
	moments = moments[len(moments)-1:]
	p.set(update)
	at("accepted")
	if len(moments) != 5 {
		t.Fatalf("%d moments, want before, proposed, measured, recorded, accepted", len(moments))
	}
	for _, m := range moments {
		t.Run(m.name, func(t *testing.T) {
			r := &register{digests: m.digests}
			again := 0
			c := binding.Config{Register: r, Record: func(context.Context, record.Fact) error { again++; return nil }}
			b := &bench{t, b.compiler, m.dir, b.boot}
			p := b.start(c, closedDefault, true)
			if p.startup != nil {
				t.Fatal(p.startup)
			}
			image := 2
			if bytes.Equal(r.latest(), eventOf(t, update)) {
				image = 3
			}
			if want := 3; m.name != "before" && m.name != "proposed" && image != want {
				t.Errorf("the register shows image %d, want %d", image, want)
			}
			p.forbids("CreateContainerRequest", create(5-image))
			if j := p.journal.Record(); j.Pending != "" || len(j.Fragments) != 1 {
				t.Errorf("journal %+v", j)
			}
			p.set(update)
			p.allows("CreateContainerRequest", create(3))
			if n := r.extends + len(m.digests); n != 3 {
				t.Errorf("%d events in the register, want 3", n)
			}
			if (m.name == "measured" || m.name == "recorded") && again == 0 {
				t.Error("the launch record was not asked again")
			}
		})
	}
}

// TestAFragmentWhoseMeasurementFails: nobody is let through until it is known what the register holds.
func TestAFragmentWhoseMeasurementFails(t *testing.T) {
	for _, taken := range []bool{false, true} {
		t.Run(fmt.Sprintf("taken all the same %t", taken), func(t *testing.T) {
			r := &register{}
			p := newBench(t).start(binding.Config{Register: r}, closedDefault, false)
			p.set(withIssuers(t, "app", "second"))
			update := toImage(t, 2, 2)
			r.fail = fmt.Errorf("%w: gone", measure.ErrExtend)
			p.refuses(update, binding.CodePCRExtend)
			p.denies(binding.CodePCRExtend)
			if taken {
				r.digests = append(r.digests, eventOf(t, update))
			}
			p.refuses(signed(t, issuerKey, newImage("second", 2, 3)), binding.Code(measure.Reason(r.fail)))
			r.fail = nil
			p.set(withIssuers(t, "app", "second")) // the same policy again: look at the register
			image := 1
			if taken {
				image = 2
			}
			p.forbids("CreateContainerRequest", create(3-image))
			p.allows("CreateContainerRequest", create(image))
		})
	}
}

// TestAJournalThatCannotBeWrittenRefusesAFragment before anything is measured; the policy goes on.
func TestAJournalThatCannotBeWrittenRefusesAFragment(t *testing.T) {
	b, r := newBench(t), &register{}
	p := b.start(binding.Config{Register: r}, closedDefault, false)
	p.set(withIssuers(t, "app"))
	moved := b.dir + ".away"
	if err := os.Rename(b.dir, moved); err != nil {
		t.Fatal(err)
	}
	p.refuses(toImage(t, 2, 2), binding.CodeLogFailed)
	if err := os.Rename(moved, b.dir); err != nil {
		t.Fatal(err)
	}
	if r.extends != 1 {
		t.Errorf("%d extends, want 1", r.extends)
	}
	p.allows("CreateContainerRequest", create(1))
}

// TestParallelFragments: one at a time, each SVN once, and the highest that came decides.
func TestParallelFragments(t *testing.T) {
	r := &register{}
	p := newBench(t).start(binding.Config{Register: r}, closedDefault, false)
	p.set(withIssuers(t, "app"))
	texts := make([]string, 64)
	for i := range texts {
		texts[i] = toImage(t, uint64(2+i/2), 2+i) // two of each SVN
	}
	var taken atomic.Int64
	var wg sync.WaitGroup
	for _, text := range texts {
		wg.Go(func() {
			err := p.chain.SetPolicy(t.Context(), []byte(text))
			switch codeOf(err) {
			case "":
				taken.Add(1)
			case binding.CodeFragmentRollback:
			default:
				t.Errorf("SetPolicy: %v", err)
			}
		})
	}
	wg.Wait()
	if n := int(taken.Load()); n < 1 || n > 32 || r.extends != 1+n {
		t.Errorf("%d taken, %d extends", n, r.extends)
	}
	got := p.chain.Status(t.Context()).Fragments
	if len(got) != 1 || got[0].SVN != 33 {
		t.Errorf("in force: %+v, want svn 33", got)
	}
}

// TestAFragmentDoesNotEndWithItsClient: what is measured takes effect, whoever still waits.
func TestAFragmentDoesNotEndWithItsClient(t *testing.T) {
	r := &register{}
	p := newBench(t).start(binding.Config{Register: r}, closedDefault, false)
	p.set(withIssuers(t, "app"))
	r.block, r.entered = make(chan struct{}), make(chan struct{})
	release := r.block
	ctx, cancel := context.WithCancel(t.Context())
	set := make(chan error, 1)
	go func() { set <- p.chain.SetPolicy(ctx, []byte(toImage(t, 2, 2))) }()
	<-r.entered
	cancel()
	close(release)
	if err := <-set; err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	p.allows("CreateContainerRequest", create(2))
}
