// SPDX-License-Identifier: Apache-2.0

// Package adversary_test drives the rules with changed sequences of a pod's genuine
// requests, and fails where they allow what a model of a pod says breaks a guarantee.
package adversary_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"portcullis/rules"
)

var (
	duration = flag.Duration("adversary", 0, "drive for so long, with fresh seeds unless -seed is given")
	seeded   = flag.Uint64("seed", 0, "begin with this seed")
	only     = flag.String("pods", "", "pattern of the names of the pods to drive")
)

const (
	// fixedSeed is that of a run of all tests.
	fixedSeed = 20261128
	// perTurn is how many sequences one pod in one form is tried with, before the next.
	perTurn = 20
)

// play asks for a sequence from the start, and returns the first guarantee that the rules let be broken.
func (p *pod) play(g *gate, events []event) (string, error) {
	b, err := g.boot()
	if err != nil {
		return "", err
	}
	m := p.facts.begin()
	for n, e := range events {
		outcome, comes := m.agent(e)
		if !comes {
			continue
		}
		allowed, err := b.ask(e.request, outcome)
		if err != nil {
			return "", err
		}
		if !allowed {
			continue
		}
		for _, broken := range []string{m.breaks(e), m.happened(e, outcome)} {
			if broken != "" && e.comes() {
				return fmt.Sprintf("event %d, %s: %s", n, e.kind, broken), nil
			}
		}
	}
	return "", nil
}

// drawn is a sequence as rapid draws it.
type drawn struct {
	Scene int
	Steps []step
}

// sequences draws a scene and one to five changes of it.
func sequences() *rapid.Generator[drawn] {
	one := rapid.Custom(func(t *rapid.T) step {
		return step{
			What: rapid.IntRange(0, len(changes)-1).Draw(t, "what"), At: rapid.IntRange(0, 63).Draw(t, "at"),
			From: rapid.IntRange(0, 63).Draw(t, "from"), Item: rapid.IntRange(0, 127).Draw(t, "item"),
		}
	})
	return rapid.Custom(func(t *rapid.T) drawn {
		return drawn{rapid.IntRange(0, 7).Draw(t, "scene"), rapid.SliceOfN(one, 1, 5).Draw(t, "steps")}
	})
}

func (d drawn) String() string {
	out := []string{fmt.Sprintf("scene %d", d.Scene)}
	for _, s := range d.Steps {
		out = append(out, fmt.Sprintf("%s (%d %d %d %d)", changes[s.What].name, s.What, s.At, s.From, s.Item))
	}
	return strings.Join(out, ", ")
}

// The rules allow nothing that breaks a guarantee of the model.
func TestNoSequenceBreaksAGuarantee(t *testing.T) {
	all := pods(t, *only)
	seed, began := uint64(fixedSeed), time.Now()
	switch {
	case *seeded > 0:
		seed = *seeded
	case *duration > 0:
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	set(t, "rapid.checks", fmt.Sprint(perTurn))
	set(t, "rapid.nofailfile", "true")
	set(t, "rapid.shrinktime", "10s")
	var gates []*gate
	c := compiler(t, rules.Text())
	for _, p := range all { // each in one of the forms, half and half
		gates = append(gates, p.gate(t, c, rules.Text(), (uint64(p.number)+seed)%2 == 0))
	}
	played := 0
	for round := uint64(0); round == 0 || time.Since(began) < *duration; round++ {
		for i, p := range all {
			own := seed + round*1_000_003 + uint64(p.number) // else every pod would be tried with the same draws
			set(t, "rapid.seed", fmt.Sprint(own))
			if !t.Run(fmt.Sprintf("%s/%d", p.name, own), func(t *testing.T) { rapid.Check(t, p.property(gates[i])) }) {
				t.Logf("replay: go test ./rules/adversary -run TestNoSequence -pods '^%s$' -seed %d", p.name, own-uint64(p.number))
				return
			}
			played += perTurn
		}
	}
	t.Logf("%d sequences in %.0f s", played, time.Since(began).Seconds())
}

func (p *pod) property(g *gate) func(*rapid.T) {
	return func(t *rapid.T) {
		d := sequences().Draw(t, "sequence")
		found, err := p.play(g, p.apply(d.Scene, d.Steps))
		if err != nil {
			t.Fatal(err)
		}
		if found != "" {
			t.Fatalf("%s: %s, after %v", p.name, found, d)
		}
	}
}

func set(t *testing.T, name, value string) {
	t.Helper()
	if err := flag.Set(name, value); err != nil {
		t.Fatal(err)
	}
}

// Genuine sequences break nothing in the model, and are allowed: else the adversary would try what never gets far.
func TestGenuineSequencesHoldEveryGuarantee(t *testing.T) {
	for _, p := range pods(t, "") {
		g := p.gate(t, compiler(t, rules.Text()), rules.Text(), false)
		t.Logf("%s: %d scenes, %d to %d events", p.name, len(p.scenes), len(p.scenes[len(p.scenes)-1]), len(p.scenes[0]))
		for _, scene := range append([][]event{p.life}, p.scenes...) {
			n, e, err := p.denied(g, scene)
			if err != nil {
				t.Fatal(err)
			}
			if e != nil {
				t.Errorf("%s: event %d, %s is denied", p.name, n, e.kind)
			}
			if found, err := p.play(g, scene); err != nil || found != "" {
				t.Errorf("%s: genuine %s (%v)", p.name, found, err)
			}
		}
	}
}

// What a change makes of a request can come: else nobody would look at what the rules say of it.
func TestChangesMakeRequestsThatCanCome(t *testing.T) {
	for _, p := range pods(t, "^(volumes/guest-pull|files/peer-pods|order/host-pull/ordered)$") {
		genuine := map[string]bool{}
		for _, scene := range p.scenes {
			for _, e := range scene {
				if genuine[e.text] = true; !e.comes() {
					t.Errorf("%s: genuine %s cannot come", p.name, e.kind)
				}
			}
		}
		for what, c := range changes {
			made, lost := 0, 0
			for i := range 40 {
				for _, e := range p.apply(i, []step{{what, i * 7 % 64, i * 13 % 64, i * 29 % 128}}) {
					if !genuine[e.text] {
						made++
						if !e.comes() {
							lost++
						}
					}
				}
			}
			if lost > made/5 { // a port below zero, or a text where a number belongs
				t.Errorf("%s: %d of %d requests that %q makes cannot come", p.name, lost, made, c.name)
			}
		}
	}
}
