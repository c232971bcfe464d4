// SPDX-License-Identifier: Apache-2.0

package prove_test

import (
	"fmt"

	"portcullis/rules/policydata"
)

// side is one policy of a pair, with the state that it has come to.
type side struct {
	*decider
	state int
}

// attacker looks for a sequence that breaks a proof: one policy allows its last request and the other denies it, which was proven
// to allow all that the first does. Both see the same requests, and those that either denies have not happened.
type attacker struct {
	original, changed side
	within            [2]bool // proven: the changed policy within the original one; the original one within the changed one
	seen              map[uint64]bool
	allowed           int // of the sequences, by both
}

// Directions of within.
const (
	changedWithin  = 0
	originalWithin = 1
)

// shared is how many of n sequences all pairs of one policy have in common.
func shared(n int) int { return n - n/3 }

// run decides n sequences, of which it says what broke a proof, "" if nothing did. The first of them are those that the pairs of
// one original have in common; the others have this pair's own values in them.
func (x *attacker) run(n int, common []plan, own *planner) (broken string, err error) {
	for _, p := range common {
		if len(x.seen) >= shared(n) {
			break
		}
		if broken, err = x.follow(p, shared(n)); broken != "" || err != nil {
			return broken, err
		}
	}
	for idle := 0; len(x.seen) < n && idle < 1000; idle++ {
		before := len(x.seen)
		if broken, err = x.follow(own.plan(), n); broken != "" || err != nil {
			return broken, err
		}
		if len(x.seen) > before {
			idle = 0
		}
	}
	return "", nil
}

// follow goes through a plan from the start of the guest. Each request of it ends one sequence, which is decided if it was not
// before.
func (x *attacker) follow(p plan, n int) (string, error) {
	x.original.state, x.changed.state = 0, 0
	prefix := uint64(0)
	for _, s := range p {
		id := s.after(prefix)
		if x.seen[id] && !s.carry {
			continue
		}
		if len(x.seen) >= n {
			return "", nil
		}
		x.seen[id] = true
		happened, broken, err := x.ask(s)
		if broken != "" || err != nil {
			return broken, err
		}
		if happened {
			prefix = id
		}
	}
	return "", nil
}

// ask decides a request under one policy, and where that allows it, or both are within each other, under the other one.
func (x *attacker) ask(s *step) (happened bool, broken string, err error) {
	first, second := &x.original, &x.changed
	if !x.within[originalWithin] {
		first, second = second, first
	}
	both := x.within[changedWithin] && x.within[originalWithin]
	one, err := first.first(s)
	if err != nil || !one.allowed && !both {
		return false, "", err
	}
	other, err := second.second(s, one.allowed)
	if err != nil {
		return false, "", err
	}
	if one.allowed && !other.allowed { // unless it was a guess
		if one, err = first.ask(first.state, s); err != nil {
			return false, "", err
		}
	}
	if one.allowed != other.allowed {
		return false, fmt.Sprintf("%s, %s: the original policy allows it: %v, the changed one: %v: %.2000s", s.kind, s.about,
			one.allowed == (first == &x.original), one.allowed == (first == &x.changed), s.value), nil
	}
	if !one.allowed {
		return false, "", nil
	}
	x.allowed++
	if s.carry {
		first.state, second.state = one.after, other.after
	}
	return s.carry, "", nil
}

// first decides a request of which nothing is known yet.
func (d *side) first(s *step) (answer, error) {
	if s.usual && s.carry {
		return d.ask(d.state, s)
	}
	one, err := d.guess(d.state, s)
	if err != nil || !s.carry || !one.allowed {
		return one, err
	}
	return d.ask(d.state, s)
}

// second decides a request of which it is known what the other policy says: what is expected to be denied is not asked for its
// reason.
func (d *side) second(s *step, expected bool) (answer, error) {
	if !expected {
		if guess, err := d.guess(d.state, s); err != nil || !guess.allowed {
			return guess, err
		}
	}
	return d.ask(d.state, s)
}

// attack has n sequences decided against what was proven of a pair.
func (f *forcer) attack(m mutant, within [2]bool, changed *policydata.Policy, n int) (*attacker, string, error) {
	other, err := newDecider(f.ctx, f.compiler, changed)
	if err != nil {
		return nil, "", err
	}
	defer other.engine.Close()
	own, err := newPlanner(f.draw(m), news(f.original.data, changed), f.original.data, changed)
	if err != nil {
		return nil, "", err
	}
	x := &attacker{original: side{decider: f.original}, changed: side{decider: other}, within: within, seen: map[uint64]bool{}}
	broken, err := x.run(n, f.common, own)
	return x, broken, err
}
