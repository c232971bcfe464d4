// SPDX-License-Identifier: Apache-2.0

package adversary_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine"
	"portcullis/engine/journal"
	"portcullis/engine/policytext"
)

// gate decides as a guest does, by the engine and by what the gate holds for every policy: an id is taken once in a boot. It
// remembers what was decided in which state, so that of a sequence only what is new is evaluated.
type gate struct {
	engine *engine.Engine
	policy *engine.Policy
	begin  *state // nothing has happened
	at     *state // what the engine holds
	nodes  map[string]*state
	edges  int
}

// state is a state that the policy was in, and what was decided there.
type state struct {
	engine engine.State
	next   map[edge]decided
}

// edge is a request with what becomes of it at the agent.
type edge struct {
	request *request
	outcome outcome
}

type decided struct {
	allowed bool
	to      *state
}

// outcome is what the agent does with a request that was allowed.
type outcome int

const (
	done outcome = iota
	refused
	lost // nobody knows: the connection broke
)

// patience is how long a judgement may take: on a busy machine it is not the time that is tried.
const patience = time.Minute

// mostEdges bounds what a gate remembers.
const mostEdges = 200_000

// compiler holds a text of the rules as a guest does, without the words for denials. It is compiled once.
func compiler(t testing.TB, text string) *engine.Compiler {
	t.Helper()
	if c, ok := compilers.Load(text); ok {
		return c.(*engine.Compiler)
	}
	c, err := engine.NewCompiler(engine.CompilerOptions{Timeout: patience, HeldRules: []policytext.Held{{Text: []byte(text)}}})
	if err != nil {
		t.Fatal(err)
	}
	compilers.Store(text, c)
	return c
}

var compilers sync.Map // text -> *engine.Compiler

func newGate(c *engine.Compiler, policy []byte) (*gate, error) {
	p, err := c.Compile(context.Background(), policy)
	if err != nil {
		return nil, err
	}
	g := &gate{engine: engine.New(p, engine.Options{Timeout: patience, Workers: 1, Cache: -1}), policy: p}
	g.forget()
	return g, nil
}

func (g *gate) close() { g.engine.Close() }

func (g *gate) forget() {
	g.nodes, g.edges = map[string]*state{}, 0
	g.begin = g.node(engine.State{Possible: []json.RawMessage{json.RawMessage(`{"pstate":{}}`)}})
	g.at = nil
}

func (g *gate) node(s engine.State) *state {
	var key strings.Builder
	for _, possible := range s.Possible {
		key.Write(possible)
		key.WriteByte('\n')
	}
	n := g.nodes[key.String()]
	if n == nil {
		n = &state{engine: s, next: map[edge]decided{}}
		g.nodes[key.String()] = n
	}
	return n
}

// boot is a guest from its start, with a policy.
type boot struct {
	gate *gate
	at   *state
	ids  *journal.Journal
}

func (g *gate) boot() (*boot, error) {
	if g.edges > mostEdges {
		g.forget()
	}
	ids, err := journal.Open("", "boot")
	return &boot{g, g.begin, ids}, err
}

// ask decides a request, and takes in what the agent did.
func (b *boot) ask(r *request, o outcome) (bool, error) {
	e := edge{r, o}
	d, ok := b.at.next[e]
	if !ok {
		var err error
		if d, err = b.gate.decide(b.at, e); err != nil {
			return false, err
		}
		b.at.next[e] = d
		b.gate.edges++
	}
	if !d.allowed {
		return false, nil
	}
	if id := text(r.input["container_id"]); r.kind == "CreateContainerRequest" && id != `""` {
		switch err := b.ids.Take(id); {
		case errors.Is(err, journal.ErrTaken):
			return false, nil
		case err != nil:
			return false, err
		}
	}
	b.at = d.to
	return true, nil
}

func (g *gate) decide(at *state, e edge) (decided, error) {
	ctx := context.Background()
	if g.at != at {
		if err := g.engine.Restore(ctx, g.policy, at.engine); err != nil {
			return decided{}, fmt.Errorf("decide: %w", err)
		}
		g.at = at
	}
	question := engine.Request{EntryPoint: e.request.kind, Input: func(*engine.Policy) (ast.Value, error) { return e.request.value() }}
	judge := g.engine.Judge
	if e.request.kind == answered {
		judge = g.engine.Observe
	}
	v, err := judge(ctx, question)
	if errors.Is(err, engine.ErrEvaluation) {
		return decided{false, at}, nil
	}
	if err != nil {
		return decided{}, fmt.Errorf("decide %s: %w", e.request.kind, err)
	}
	if !v.Allowed || !v.Holds() {
		return decided{v.Allowed, at}, nil
	}
	switch e.outcome {
	case done:
		err = v.Commit()
	case refused:
		v.Discard()
	case lost:
		v.Doubt()
	}
	if err != nil {
		return decided{}, fmt.Errorf("decide %s: %w", e.request.kind, err)
	}
	g.at = g.node(g.engine.State())
	return decided{true, g.at}, nil
}
