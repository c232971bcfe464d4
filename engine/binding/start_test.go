// SPDX-License-Identifier: Apache-2.0

package binding_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portcullis/engine/binding"
	"portcullis/engine/journal"
)

func TestRestartGoesOnWithPolicyAndState(t *testing.T) {
	b, r := newBench(t), &register{}
	first := b.start(binding.Config{Register: r}, closedDefault, false)
	first.set(good)
	first.allows("CreateContainerRequest", `{"id": "a"}`)
	if err := first.chain.TakeID("b"); err != nil {
		t.Fatal(err)
	}
	second := b.start(binding.Config{Register: r}, closedDefault, true)
	if second.startup != nil {
		t.Fatal(second.startup)
	}
	if second.state() != first.state() || r.extends != 1 {
		t.Errorf("state %s, %d extends; want %s, 1", second.state(), r.extends, first.state())
	}
	if b, a := second.chain.TakeID("b"), second.chain.TakeID("a"); !errors.Is(b, journal.ErrTaken) || a != nil {
		t.Errorf("the id that was used is taken again: %v; another is not: %v", b, a)
	}
	second.allows("ExecProcessRequest", `{}`)
	second.set(good)
	second.refuses(good2, binding.CodeAlreadySet)
}

func TestRestartKeepsTheDefaultPolicysRun(t *testing.T) {
	b := newBench(t)
	b.start(binding.Config{Open: true}, openDefault, false).allows("ExecProcessRequest", `{}`)
	r := &register{}
	p := b.start(binding.Config{Open: true, Register: r}, openDefault, true)
	if p.startup != nil {
		t.Fatal(p.startup)
	}
	p.refuses(good, binding.CodeAlreadyRunning)
	if r.extends != 0 {
		t.Error("the policy was measured")
	}
	p.allows("ExecProcessRequest", `{}`)
}

func TestStateLost(t *testing.T) {
	tests := []struct {
		name      string
		change    func(t *testing.T, b *bench)
		agentRuns bool
		config    func(*binding.Config)
	}{
		{"no journal beside a running agent", func(t *testing.T, b *bench) { b.dir = t.TempDir() }, true, nil},
		{"journal of another boot beside a running agent", func(t *testing.T, b *bench) { b.boot = "another" }, true, nil},
		{"journal cut", func(t *testing.T, b *bench) { truncate(t, filepath.Join(b.dir, "journal.json")) }, false, nil},
		{"policy of the journal changed", func(t *testing.T, b *bench) {
			paths, _ := filepath.Glob(filepath.Join(b.dir, "policy-*.rego"))
			truncate(t, paths[0])
		}, false, nil},
		{"field binds another", nil, false, func(c *binding.Config) { c.Field = &field{digest: digest(good2)} }},
		{"register holds another", nil, false, func(c *binding.Config) { c.Register = &register{digests: [][]byte{digest(good2)}} }},
		{"register was reset", nil, false, func(c *binding.Config) { c.Register = &register{} }},
		{"register cannot be read", nil, false, func(c *binding.Config) { c.Register = &register{fail: errors.New("no TPM")} }},
		{"initdata appears", nil, false, func(c *binding.Config) { c.Initdata = &binding.Initdata{Policy: []byte(good2)} }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, r := newBench(t), &register{}
			b.start(binding.Config{Register: r}, closedDefault, false).set(good)
			if tt.change != nil {
				tt.change(t, b)
			}
			c := binding.Config{Register: r, Open: true}
			if tt.config != nil {
				tt.config(&c)
			}
			p := b.start(c, openDefault, tt.agentRuns)
			if codeOf(p.startup) != binding.CodeStateLost {
				t.Fatalf("Start: %v", p.startup)
			}
			p.denies(binding.CodeStateLost)
			p.refuses(good, binding.CodeStateLost)
			p.allows("WaitProcessRequest", `{}`)
			p.allows("DestroySandboxRequest", `{}`)
			if ok, err := p.judge("ReadStreamRequest", `{}`); ok || err == nil {
				t.Error("output is to be denied, which lets the gate empty it")
			}
			if r.extends != 1 {
				t.Errorf("%d extends, want 1", r.extends)
			}
		})
	}
}

// A process that ends before a policy came, however that was brought about, is followed by one that takes it.
func TestKilledBeforeThePolicyTheNextOneTakesIt(t *testing.T) {
	b, r := newBench(t), &register{}
	b.start(binding.Config{Register: r}, closedDefault, false)
	p := b.start(binding.Config{Register: r}, closedDefault, true)
	if p.startup != nil {
		t.Fatal(p.startup)
	}
	p.denies(binding.CodeNotSet)
	p.set(good)
	p.allows("ExecProcessRequest", `{}`)
}

func TestABootWhoseBeginningCannotBeRecordedDeniesAll(t *testing.T) {
	b := newBench(t)
	if err := os.Mkdir(filepath.Join(b.dir, "journal.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	p := b.start(binding.Config{Open: true}, openDefault, false)
	if p.startup == nil {
		t.Error("no error")
	}
	p.refuses(good, codeOf(p.startup))
}

// Whatever time the client grants, a policy is given up that does not compile in time, and nothing is measured.
func TestCompilationHasADeadlineOfItsOwn(t *testing.T) {
	r := &register{}
	p := newBench(t).start(binding.Config{Register: r, CompileTimeout: time.Millisecond}, closedDefault, false)
	long := []byte(good + "\n")
	for i := range 5000 { // which takes some tens of milliseconds
		long = fmt.Appendf(long, "rule_%d := %d\n", i, i)
	}
	p.refuses(string(long), binding.CodePolicyInvalid)
	if r.extends != 0 {
		t.Error("the policy was measured")
	}
	newBench(t).start(binding.Config{}, closedDefault, false).set(string(long))
}

func truncate(t *testing.T, path string) {
	t.Helper()
	if err := os.Truncate(path, 10); err != nil {
		t.Fatal(err)
	}
}

func TestWithoutJournalAndAgentABootBegins(t *testing.T) {
	p := newBench(t).start(binding.Config{Open: true}, openDefault, false)
	if p.startup != nil {
		t.Fatal(p.startup)
	}
	p.allows("ExecProcessRequest", `{}`)
}

// TestOnlyAnEndingPassesWhereNothingWasLost: the requests that end a pod are exempt from state-lost alone.
func TestOnlyAnEndingPassesWhereNothingWasLost(t *testing.T) {
	p := newBench(t).start(binding.Config{}, openDefault, false)
	if ok, err := p.judge("DestroySandboxRequest", `{}`); ok || codeOf(err) != binding.CodeNotSet {
		t.Errorf("allowed %t, %v", ok, err)
	}
}

// TestKilledBetweenMeasuringAndRecording: the register holds the policy and nobody has made it active.
func TestKilledBetweenMeasuringAndRecording(t *testing.T) {
	b, r := newBench(t), &register{digests: [][]byte{digest(good)}, extends: 1}
	p := b.start(binding.Config{Register: r, Open: true}, openDefault, false)
	p.denies(binding.CodeNotSet) // the default policy must not decide under this register
	p.refuses(good2, binding.CodeAlreadySet)
	p.denies(binding.CodeNotSet)
	p.set(good)
	p.allows("ExecProcessRequest", `{}`)
	if r.extends != 1 {
		t.Errorf("%d extends, want 1", r.extends)
	}
}

func TestKilledBetweenMeasuringAndRecordingAnUpdate(t *testing.T) {
	b, r := newBench(t), &register{}
	first := b.start(binding.Config{Register: r, Update: true}, closedDefault, false)
	first.set(good)
	first.allows("CreateContainerRequest", `{"id": "a"}`)
	r.digests, r.extends = append(r.digests, digest(good2)), 2
	p := b.start(binding.Config{Register: r, Update: true}, closedDefault, true)
	p.denies(binding.CodeNotSet)
	p.set(good2)
	if r.extends != 2 {
		t.Errorf("%d extends, want 2", r.extends)
	}
	if p.state() != first.state() {
		t.Errorf("state %s, want %s", p.state(), first.state())
	}
	p.allows("ExecProcessRequest", `{}`)
}

func TestRegisterThatSurprisesAtStart(t *testing.T) {
	surprise := &binding.Error{Code: binding.CodePCRUnexpected, Err: errors.New("extended by another program")}
	r := &register{fail: surprise}
	p := newBench(t).start(binding.Config{Register: r, Open: true}, openDefault, false)
	p.denies(binding.CodePCRUnexpected)
	p.refuses(good, binding.CodePCRUnexpected)
	r.fail = nil // as when another program gives the TPM back
	p.set(good)
	p.allows("ExecProcessRequest", `{}`)
}

const document = "version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n"

func fromInitdata(policy string) *binding.Initdata {
	i := &binding.Initdata{Alg: "sha256", Digest: digest(document), Size: len(document)}
	if policy != "" {
		i.Policy = []byte(policy)
	}
	return i
}

func TestInitdataIsBoundAtStart(t *testing.T) {
	seq := &sequence{}
	b, r, i := newBench(t), &register{seq: seq}, fromInitdata(good)
	i.Provide = func() error { seq.add("provide"); return nil }
	i.Unchanged = func() error { seq.add("check"); return nil }
	c := binding.Config{Register: r, Field: &field{digest(document), seq}, Initdata: i}
	p := b.start(c, closedDefault, false)
	if p.startup != nil {
		t.Fatal(p.startup)
	}
	p.allows("CreateContainerRequest", `{"id": "a"}`)
	p.allows("ExecProcessRequest", `{}`)
	if seq.String() != "compare measure provide check" {
		t.Errorf("order: %s", seq)
	}
	p.set(good)
	p.refuses(good2, binding.CodeInitdataLocked)
	second := b.start(c, closedDefault, true)
	second.allows("ExecProcessRequest", `{}`)
	if second.state() != p.state() || r.extends != 1 {
		t.Errorf("after a restart: state %s, %d extends", second.state(), r.extends)
	}
}

func TestInitdataThatIsRefused(t *testing.T) {
	tests := []struct {
		name   string
		change func(*binding.Config)
		code   binding.Code
	}{
		{"field binds another", func(c *binding.Config) { c.Field = &field{digest: digest("other")} }, binding.CodeDigestMismatch},
		{"field binds the policy instead", func(c *binding.Config) { c.Field = &field{digest: digest(good)} }, binding.CodeDigestMismatch},
		{"no policy.rego", func(c *binding.Config) { c.Initdata.Policy = nil }, binding.CodeInitdataInvalid},
		{"policy that does not compile", func(c *binding.Config) { c.Initdata.Policy = []byte("package x") }, binding.CodePolicyInvalid},
		{"policy that waives denials", func(c *binding.Config) {
			c.Strict, c.Initdata.Policy = true, []byte(good+"AllowRequestsFailingPolicy := true\n")
		}, binding.CodePolicyWaives},
		{"copies that cannot be made", func(c *binding.Config) {
			c.Initdata.Provide = func() error { return errors.New("disk is still attached") }
		}, binding.CodeInitdataInvalid},
		{"register taken", func(c *binding.Config) { c.Register = &register{digests: [][]byte{digest("other")}} }, binding.CodeAlreadySet},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := binding.Config{Open: true, Initdata: fromInitdata(good)}
			tt.change(&c)
			p := newBench(t).start(c, openDefault, false)
			if codeOf(p.startup) != tt.code {
				t.Errorf("Start: %v, want %s", p.startup, tt.code)
			}
			p.denies(tt.code)
			p.refuses(good, tt.code)
		})
	}
}

func TestChangedCopyOfInitdataDeniesEverything(t *testing.T) {
	i := fromInitdata(good)
	i.Unchanged = func() error {
		return &binding.Error{Code: binding.CodeInitdataChanged, Err: errors.New("aa.toml differs")}
	}
	p := newBench(t).start(binding.Config{Initdata: i}, closedDefault, false)
	if p.startup != nil {
		t.Fatal(p.startup)
	}
	p.denies(binding.CodeInitdataChanged)
	p.refuses(good, binding.CodeInitdataChanged)
}

func TestDenyIsForGood(t *testing.T) {
	p := newBench(t).start(binding.Config{Open: true}, openDefault, false)
	p.allows("ExecProcessRequest", `{}`)
	p.chain.Deny(binding.CodeInitdataChanged, errors.New("changed"))
	p.denies(binding.CodeInitdataChanged)
	p.refuses(good, binding.CodeInitdataChanged)
}

func TestStatusSaysWhatDecides(t *testing.T) {
	facts := binding.Facts{Mode: "required", Backend: "vtpm", Binding: "policy"}
	r := &register{}
	p := newBench(t).start(binding.Config{Register: r, Facts: facts}, closedDefault, false)
	s := p.chain.Status(context.Background())
	if s.State != binding.StateDenied || s.Code != binding.CodeNotSet || s.PodComplete != nil || s.Backend != "vtpm" {
		t.Errorf("before SetPolicy: %+v", s)
	}
	p.set(good)
	s = p.chain.Status(context.Background())
	if s.State != binding.StateActive || s.Code != "" || s.Ran || s.Generation != 2 || s.PodComplete == nil || *s.PodComplete {
		t.Errorf("after SetPolicy: %+v", s)
	}
	p.allows("CreateContainerRequest", `{"id": "a"}`)
	s = p.chain.Status(context.Background())
	if !s.Ran || s.PodComplete == nil || !*s.PodComplete || s.Register.Events != 1 {
		t.Errorf("with its container: %+v", s)
	}
	r.fail = errors.New("TPM\nis busy")
	if s = p.chain.Status(context.Background()); s.Register.Error == "" || strings.Contains(s.Register.Error, "\n") {
		t.Errorf("register that cannot be read: %+v", s.Register)
	}
	open := newBench(t).start(binding.Config{Open: true}, openDefault, false)
	if s := open.chain.Status(context.Background()); s.State != binding.StateDefault {
		t.Errorf("open: %+v", s)
	}
}
