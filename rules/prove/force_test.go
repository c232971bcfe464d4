// SPDX-License-Identifier: Apache-2.0

package prove_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"portcullis/engine"
	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/policydata"
	"portcullis/rules/prove"
)

// A run of all tests takes a share; `make prove-force` the whole.
var (
	forcePairs     = flag.Int("pairs", 12, "compare so many pairs of policies, in both directions")
	forceSequences = flag.Int("sequences", 150, "attack each pair of which something is proven with so many sequences")
	forceSeed      = flag.Uint64("seed", 20261129, "seed of the pairs and attacks")
)

// mutant is a policy and a changed one, with the change in words.
type mutant struct {
	about    string
	original *policydata.Policy
	changed  *policydata.Policy
}

func treeOf(p *policydata.Policy) (map[string]any, error) {
	raw, err := p.JSON()
	if err != nil {
		return nil, err
	}
	var tree map[string]any
	err = json.Unmarshal(raw, &tree)
	return tree, err
}

// mutate draws a change of one to three values of policy_data that leaves a policy.
func mutate(t *testing.T, r *rand.Rand, name string, p *policydata.Policy) mutant {
	t.Helper()
	common := usualWords()
	for range 10_000 {
		tree, err := treeOf(p)
		if err != nil {
			t.Fatal(err)
		}
		var told []string
		for range pick(r, []int{1, 1, 1, 2, 3}) {
			s := spotsByPath(tree).pick(r)
			value := s.changed(r, common)
			s.set(value)
			told = append(told, fmt.Sprintf("%s: %.60v -> %.60v", s.path, s.old, value))
		}
		raw, err := json.Marshal(tree)
		if err != nil {
			t.Fatal(err)
		}
		out, _, err := policydata.Parse(raw)
		if err != nil || out.Validate() != nil {
			continue
		}
		return mutant{name + ", " + strings.Join(told, ", "), p, out}
	}
	t.Fatalf("%s: no change leaves a policy", name)
	return mutant{}
}

// tally counts what came of pairs.
type tally struct {
	sync.Mutex
	pairs, attacked    int
	verdicts           map[prove.Verdict]int
	sequences, allowed int
	witnesses          []shown
}

// shown is a refutation: all of the witness is allowed by loose, the last is denied by strict.
type shown struct {
	about         string
	strict, loose *policydata.Policy
	witness       *prove.Witness
}

// Policies are changed and compared in both directions. A proof is attacked with changed requests and sequences, which must not break
// it; a refutation is decided once more by evaluators that are not this project's: OPA's library here, an OPA server and kata-agent's
// engine in onOtherEngines.
func TestProofsStandAgainstForce(t *testing.T) {
	r := rand.New(rand.NewPCG(*forceSeed, 0))
	of := make([][]mutant, len(pods)) // by the pod
	for n := range *forcePairs {
		i := n % len(pods)
		of[i] = append(of[i], mutate(t, r, fmt.Sprintf("pair %d, %v", n, pods[i]), data(t, pods[i])))
	}
	all := forced(t, of)
	asked := 2 * all.pairs
	t.Logf("%d pairs, both directions: %v; %d of the pairs attacked with %d sequences, of which both allow %d; %d witnesses decided by OPA's library; seed %d",
		all.pairs, all.verdicts, all.attacked, all.sequences, all.allowed, len(all.witnesses), *forceSeed)
	if unknown := all.verdicts[prove.Unknown]; asked == 0 || tooMany(unknown, asked, 2) {
		t.Errorf("%v: more than 2 %% are unknown", all.verdicts)
	}
	onOtherEngines(t, all.witnesses)
}

// tooMany says whether more than so many percent are unknown; of few pairs two may be, which says nothing. Values drawn at random
// often leave a pod that neither policy lets start: no request shows a difference then, and the comparison does not see that
// there is none.
func tooMany(unknown, all, percent int) bool { return unknown > 2 && unknown*100 > all*percent }

// forced compares and attacks, one worker to a processor, each with all pairs of one pod at a time.
func forced(t *testing.T, of [][]mutant) *tally {
	t.Helper()
	all := &tally{verdicts: map[prove.Verdict]int{}}
	base, err := compiled()
	if err != nil {
		t.Fatal(err)
	}
	work, began := make(chan []mutant), time.Now()
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for mutants := range work {
				if err := force(t, base, all, mutants, began); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, mutants := range of {
		if len(mutants) > 0 {
			work <- mutants
		}
	}
	close(work)
	workers.Wait()
	return all
}

// forcer has the pairs of one policy.
type forcer struct {
	*testing.T
	ctx      context.Context
	prover   *prove.Prover
	compiler *engine.Compiler
	rules    *rulestest.Judge
	original *decider
	common   []plan
	all      *tally
}

func force(t *testing.T, base *rulestest.Judge, all *tally, mutants []mutant, began time.Time) error {
	prover, err := prove.New()
	if err != nil {
		return err
	}
	compiler, err := engine.NewCompiler(engine.CompilerOptions{HeldRules: rules.Held()})
	if err != nil {
		return err
	}
	original := mutants[0].original
	f := &forcer{T: t, ctx: t.Context(), prover: prover, compiler: compiler, rules: base, all: all}
	if f.original, err = newDecider(f.ctx, compiler, original); err != nil {
		return err
	}
	defer f.original.engine.Close()
	draws, err := newPlanner(rand.New(rand.NewPCG(*forceSeed, 2)), stringsOf(original), original)
	if err != nil {
		return err
	}
	for steps := 0; steps < 2*shared(*forceSequences); {
		p := draws.plan()
		steps += len(p)
		f.common = append(f.common, p)
	}
	a, err := f.load(original)
	if err != nil {
		return err
	}
	defer a.Close()
	for _, m := range mutants {
		if err := f.pair(a, m); err != nil {
			t.Errorf("%s: %v", m.about, err)
		}
		all.Lock()
		all.pairs++
		if all.pairs%10 == 0 {
			t.Logf("%d pairs after %v: %v, %d attacked, %d sequences", all.pairs, time.Since(began).Round(time.Second), all.verdicts, all.attacked, all.sequences)
		}
		all.Unlock()
	}
	return nil
}

func (f *forcer) load(p *policydata.Policy) (*prove.Policy, error) {
	text, err := p.Compact(rules.Text())
	if err != nil {
		return nil, err
	}
	return f.prover.Load(f.ctx, text)
}

// draw is the source of chance for one pair.
func (f *forcer) draw(m mutant) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(m.about))
	return rand.New(rand.NewPCG(*forceSeed, h.Sum64()))
}

// pair asks both directions of a mutant, and attacks what is proven.
func (f *forcer) pair(a *prove.Policy, m mutant) error {
	b, err := f.load(m.changed)
	if err != nil {
		return err
	}
	defer b.Close()
	var within [2]bool
	for direction, pair := range [][2]*prove.Policy{changedWithin: {a, b}, originalWithin: {b, a}} {
		about := fmt.Sprintf("%s, %s", m.about, []string{"looser?", "stricter?"}[direction])
		if within[direction], err = f.direction(about, pair[0], pair[1]); err != nil {
			return fmt.Errorf("%s: %w", about, err)
		}
	}
	if within == [2]bool{} {
		return nil
	}
	x, broken, err := f.attack(m, within, m.changed, *forceSequences)
	if err != nil {
		return err
	}
	if broken != "" {
		f.Errorf("%s: proven, and yet %s", m.about, broken)
	}
	f.all.Lock()
	defer f.all.Unlock()
	f.all.attacked, f.all.sequences, f.all.allowed = f.all.attacked+1, f.all.sequences+len(x.seen), f.all.allowed+x.allowed
	return nil
}

// direction says whether b is proven to be within a.
func (f *forcer) direction(about string, a, b *prove.Policy) (bool, error) {
	result, err := f.prover.Within(f.ctx, a, b)
	if err != nil {
		return false, err
	}
	f.all.Lock()
	f.all.verdicts[result.Verdict]++
	if result.Verdict == prove.Refuted {
		f.all.witnesses = append(f.all.witnesses, shown{about, a.Data, b.Data, result.Witness})
	}
	f.all.Unlock()
	switch result.Verdict {
	case prove.Refuted:
		return false, f.library(a.Data, b.Data, result.Witness)
	case prove.Unknown:
		f.Logf("%.600s: unknown: %.600v", about, result.Open)
	}
	return result.Verdict == prove.Proven, nil
}

// library decides a witness by OPA's library, request by request.
func (f *forcer) library(a, b *policydata.Policy, w *prove.Witness) error {
	for _, side := range []struct {
		policy *policydata.Policy
		last   bool
	}{{b, true}, {a, false}} {
		raw, err := side.policy.JSON()
		if err != nil {
			return err
		}
		judge, err := f.rules.Under(raw)
		if err != nil {
			return err
		}
		for i, r := range w.Requests {
			d, err := judge.Ask(f.ctx, r)
			want := side.last || i < len(w.Requests)-1
			if r.Kind != observed && d.Allowed != want {
				return fmt.Errorf("request %d of the witness, %s: allowed is %v (%w)", i, r.Kind, d.Allowed, err)
			}
		}
	}
	return nil
}

// onOtherEngines decides witnesses by an OPA server and by kata-agent's engine, as far as they are there.
func onOtherEngines(t *testing.T, witnesses []shown) {
	slices.SortFunc(witnesses, func(a, b shown) int { return strings.Compare(a.about, b.about) })
	t.Run("OPA server", func(t *testing.T) { t.Parallel(); onServer(t, witnesses) })
	t.Run("kata-agent's engine", func(t *testing.T) { t.Parallel(); onRegorus(t, witnesses) })
}
