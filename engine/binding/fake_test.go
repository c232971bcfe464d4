// SPDX-License-Identifier: Apache-2.0

package binding_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine"
	"portcullis/engine/binding"
	"portcullis/engine/journal"
	"portcullis/measure"
	"portcullis/measure/eventlog"
)

// sequence is what the parts around a chain were asked to do, in order.
type sequence struct {
	mu    sync.Mutex
	steps []string
}

func (s *sequence) add(step string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = append(s.steps, step)
}

func (s *sequence) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.steps, " ")
}

// field binds one digest.
type field struct {
	digest []byte
	seq    *sequence
}

func (f *field) Match(digest []byte) error {
	f.seq.add("compare")
	if !bytes.Equal(digest, f.digest) {
		return errors.New("another digest")
	}
	return nil
}

// register behaves as a PCR with its log does: what is in it outlives the process.
type register struct {
	mu      sync.Mutex
	digests [][]byte
	fail    error // of all operations
	extends int
	seq     *sequence
	block   chan struct{} // when not nil, Measure waits for it
	entered chan struct{} // closed when Measure begins to wait
}

func (r *register) latest() []byte {
	if len(r.digests) == 0 {
		return nil
	}
	return r.digests[len(r.digests)-1]
}

func (r *register) Resume(context.Context) (measure.Standing, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.latest() == nil {
		return measure.Standing{}, r.fail
	}
	return measure.Standing{Event: &measure.Event{Digest: r.latest()}}, r.fail
}

func (r *register) Measure(_ context.Context, e measure.Event) (eventlog.Record, error) {
	return eventlog.Record{}, r.take(e, false)
}

func (r *register) Update(_ context.Context, e measure.Event) (eventlog.Record, error) {
	return eventlog.Record{}, r.take(e, true)
}

func (r *register) take(e measure.Event, update bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq.add("measure")
	if r.block != nil {
		close(r.entered)
		<-r.block
		r.block = nil
	}
	switch {
	case r.fail != nil:
		return r.fail
	case bytes.Equal(r.latest(), e.Digest):
		return nil
	case r.latest() != nil && !update:
		return &binding.Error{Code: binding.CodeAlreadySet, Err: errors.New("measured another")}
	}
	r.digests = append(r.digests, e.Digest)
	r.extends++
	return nil
}

func (r *register) State(context.Context) (measure.Status, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return measure.Status{PCR: 8, State: "measured", Seq: uint64(len(r.digests))}, r.fail
}

// recorder keeps comparisons.
type recorder struct {
	seq     *sequence
	records []string
	fail    error
}

func (r *recorder) Record(e measure.Event, match bool) error {
	r.seq.add("record")
	r.records = append(r.records, fmt.Sprintf("%s %t", e.Type, match))
	return r.fail
}

// bench makes chains one after the other, as processes of one boot have them.
type bench struct {
	t        testing.TB
	compiler *engine.Compiler
	dir      string
	boot     string
}

func newBench(t testing.TB) *bench {
	t.Helper()
	compiler, err := engine.NewCompiler(engine.CompilerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return &bench{t, compiler, t.TempDir(), "boot"}
}

// openDefault allows everything.
const openDefault = `package agent_policy

default SetPolicyRequest := true
default CreateContainerRequest := true
default ExecProcessRequest := true
default CheckRequest := true
`

// closedDefault allows SetPolicy.
const closedDefault = "package agent_policy\n\ndefault SetPolicyRequest := true\n"

// good allows a policy to be set after it, and keeps a count of containers.
const good = `package agent_policy

import rego.v1

default SetPolicyRequest := true
default ExecProcessRequest := true
CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": concat("", ["/pstate/", input.id]), "value": true}]}
pod_complete if data.pstate.a
`

// good2 is another policy.
const good2 = good + "\n# another\n"

// locked forbids another policy.
const locked = "package agent_policy\n\ndefault ExecProcessRequest := true\ndefault SetPolicyRequest := false\n"

// process is one policyd.
type process struct {
	t       testing.TB
	chain   *binding.Chain
	engine  *engine.Engine
	journal *journal.Journal
	startup error
}

// start makes a chain; what the configuration leaves open is filled in.
func (b *bench) start(c binding.Config, def string, agentRuns bool) *process {
	b.t.Helper()
	first, err := b.compiler.Compile(b.t.Context(), []byte(def))
	if err != nil {
		b.t.Fatal(err)
	}
	j, err := journal.Open(b.dir, b.boot)
	if err != nil {
		b.t.Fatal(err)
	}
	c.Engine, c.Compiler, c.Default, c.Journal = engine.New(first, engine.Options{}), b.compiler, first, j
	b.t.Cleanup(c.Engine.Close)
	if c.Alg == "" {
		c.Alg = "sha256"
	}
	chain := binding.New(c)
	return &process{b.t, chain, c.Engine, j, chain.Start(b.t.Context(), agentRuns)}
}

// judge asks for a decision and commits what it changes.
func (p *process) judge(entryPoint, input string) (bool, error) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Second)
	defer cancel()
	v, err := p.chain.Admit(ctx, ask(entryPoint, input))
	if err != nil {
		return false, err
	}
	if err := v.Commit(); err != nil {
		p.t.Fatal(err)
	}
	return v.Allowed, nil
}

func ask(entryPoint, input string) engine.Request {
	return engine.Request{EntryPoint: entryPoint, Input: func(*engine.Policy) (ast.Value, error) {
		return ast.ValueFromReader(strings.NewReader(input))
	}}
}

func (p *process) allows(entryPoint, input string) {
	p.t.Helper()
	if ok, err := p.judge(entryPoint, input); !ok || err != nil {
		p.t.Errorf("%s: allowed %t, %v; want it allowed", entryPoint, ok, err)
	}
}

// denies requires that everything is denied for a reason.
func (p *process) denies(code binding.Code) {
	p.t.Helper()
	for _, entryPoint := range []string{"CreateContainerRequest", "ExecProcessRequest", "CopyFileRequest"} {
		ok, err := p.judge(entryPoint, `{"id": "x"}`)
		if ok || codeOf(err) != code {
			p.t.Errorf("%s: allowed %t, %v; want %s", entryPoint, ok, err, code)
		}
	}
}

func (p *process) set(text string) { p.t.Helper(); p.refuses(text, "") }

// refuses sets a policy and requires the code; "" means that it is taken.
func (p *process) refuses(text string, code binding.Code) {
	p.t.Helper()
	err := p.chain.SetPolicy(p.t.Context(), []byte(text))
	if codeOf(err) != code || (err == nil) != (code == "") {
		p.t.Errorf("SetPolicy: %v; want code %q", err, code)
	}
}

func codeOf(err error) binding.Code {
	var e *binding.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func digest(text string) []byte {
	d := sha256.Sum256([]byte(text))
	return d[:]
}

func (p *process) state() string { return fmt.Sprintf("%s", p.engine.State().Possible) }
