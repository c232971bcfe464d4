// SPDX-License-Identifier: Apache-2.0

package prove_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/policydata"
	"portcullis/rules/prove"
)

// A run of all tests takes a share; `make prove-force` the whole.
var (
	forcePairs    = flag.Int("pairs", 12, "compare so many pairs of policies, in both directions")
	forceRequests = flag.Int("requests", 150, "attack each proof with so many requests")
	forceSeed     = flag.Uint64("seed", 20261129, "seed of the pairs and attacks")
	forceTime     = flag.Duration("force", 0, "begin no other pair after so long; 0 is no bound")
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
	common := words(p, p)
	for range 10_000 {
		tree, err := treeOf(p)
		if err != nil {
			t.Fatal(err)
		}
		var told []string
		for range pick(r, []int{1, 1, 1, 2, 3}) {
			s := pickSpot(r, spotsOf(tree))
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
	verdicts       map[prove.Verdict]int
	asked, allowed int
	witnesses      []shown
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
	var originals []*policydata.Policy
	for _, p := range pods {
		originals = append(originals, data(t, p))
	}
	var mutants []mutant
	for n := range *forcePairs {
		i := n % len(pods)
		mutants = append(mutants, mutate(t, r, fmt.Sprint(pods[i]), originals[i]))
	}
	all := forced(t, mutants)
	pairs := all.verdicts[prove.Proven] + all.verdicts[prove.Refuted] + all.verdicts[prove.Unknown]
	t.Logf("%d pairs, both directions: %v; %d requests against proofs, %d of them allowed by both; %d witnesses decided by OPA's library",
		pairs/2, all.verdicts, all.asked, all.allowed, len(all.witnesses))
	if unknown := all.verdicts[prove.Unknown]; pairs == 0 || tooMany(unknown, pairs, 4) {
		t.Errorf("%v: more than 4 %% are unknown", all.verdicts)
	}
	onOtherEngines(t, all.witnesses)
}

// tooMany says whether more than so many percent are unknown; of few pairs two may be, which says nothing. Values drawn at random often
// leave a pod that neither policy lets start: no request shows a difference then, and the comparison does not see that there is none.
func tooMany(unknown, all, percent int) bool { return unknown > 2 && unknown*100 > all*percent }

// forced compares and attacks, one worker to a processor.
func forced(t *testing.T, mutants []mutant) *tally {
	t.Helper()
	all := &tally{verdicts: map[prove.Verdict]int{}}
	base, err := rulestest.New(rules.Text(), nil)
	if err != nil {
		t.Fatal(err)
	}
	work, began := make(chan int), time.Now()
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			w, err := newForcer(t, base, all)
			if err != nil {
				t.Error(err)
			}
			for n := range work {
				if err == nil {
					w.pair(n, mutants[n])
				}
			}
		})
	}
	for n := range mutants {
		if *forceTime > 0 && time.Since(began) > *forceTime {
			t.Logf("the time is over after %d pairs", n)
			break
		}
		work <- n
		if n%25 == 24 {
			all.Lock()
			t.Logf("%d pairs begun after %v: %v, %d requests", n+1, time.Since(began).Round(time.Second), all.verdicts, all.asked)
			all.Unlock()
		}
	}
	close(work)
	workers.Wait()
	return all
}

// forcer is one worker.
type forcer struct {
	*testing.T
	ctx    context.Context
	prover *prove.Prover
	rules  *rulestest.Judge
	all    *tally
}

func newForcer(t *testing.T, base *rulestest.Judge, all *tally) (*forcer, error) {
	prover, err := prove.New()
	return &forcer{t, t.Context(), prover, base, all}, err
}

func (f *forcer) load(p *policydata.Policy) (*prove.Policy, error) {
	text, err := p.Compact(rules.Text())
	if err != nil {
		return nil, err
	}
	return f.prover.Load(f.ctx, text)
}

// pair asks both directions of a mutant.
func (f *forcer) pair(n int, m mutant) {
	a, err := f.load(m.original)
	if err != nil {
		f.Errorf("%s: %v", m.about, err)
		return
	}
	defer a.Close()
	b, err := f.load(m.changed)
	if err != nil {
		f.Errorf("%s: %v", m.about, err)
		return
	}
	defer b.Close()
	for direction, pair := range [][2]*prove.Policy{{a, b}, {b, a}} {
		about := fmt.Sprintf("pair %d, %s, %s", n, []string{"looser?", "stricter?"}[direction], m.about)
		if err := f.one(about, rand.New(rand.NewPCG(*forceSeed, uint64(2*n+direction+1))), pair[0], pair[1]); err != nil {
			f.Errorf("%s: %v", about, err)
		}
	}
}

func (f *forcer) one(about string, r *rand.Rand, a, b *prove.Policy) error {
	result, err := f.prover.Within(f.ctx, a, b)
	if err != nil {
		return err
	}
	f.all.Lock()
	f.all.verdicts[result.Verdict]++
	f.all.Unlock()
	switch result.Verdict {
	case prove.Refuted:
		f.all.Lock()
		f.all.witnesses = append(f.all.witnesses, shown{about, a.Data, b.Data, result.Witness})
		f.all.Unlock()
		return f.library(a.Data, b.Data, result.Witness)
	case prove.Unknown:
		f.Logf("%s: unknown: %+v", about, result.Open)
		return nil
	}
	x, err := newAttacker(f.ctx, r, f.rules, a.Data, b.Data)
	if err != nil {
		return err
	}
	broken, err := x.run(*forceRequests)
	if broken != "" {
		f.Errorf("%s: proven, and yet %s", about, broken)
	}
	f.all.Lock()
	f.all.asked, f.all.allowed = f.all.asked+x.asked, f.all.allowed+x.allowed
	f.all.Unlock()
	return err
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
	t.Run("OPA server", func(t *testing.T) { onServer(t, witnesses) })
	t.Run("kata-agent's engine", func(t *testing.T) { onRegorus(t, witnesses) })
}
