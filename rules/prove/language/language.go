// SPDX-License-Identifier: Apache-2.0

// Package language reasons about sets of strings that regular expressions describe: whether one holds all of another, and
// which string it lacks.
//
// A Set is a Boolean combination of patterns, each as [regexp.MatchString] reads it: unanchored unless it says otherwise. Nothing is
// sampled: patterns become automata over classes of characters that no pattern tells apart, and every reachable combination of their
// states is looked at. Strings are sequences of Unicode scalar values, as in valid UTF-8.
package language

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// ErrTooLarge says that a question was given up: the automata have more than [MaxStates] combinations of states, more than
// [MaxSteps] lead from one to another, or more than [MaxSpent] instructions of the patterns were looked at for them.
var ErrTooLarge = errors.New("patterns are too large to be compared")

// MaxStates bounds the combinations of states that one question looks at.
const MaxStates = 100_000

// MaxSteps bounds the steps between them: a class of thousands of characters makes many of few states.
const MaxSteps = 10_000_000

// MaxSpent bounds the instructions: each state of a large pattern has many.
const MaxSpent = 50_000_000

// Set is a set of strings. The zero Set is empty. Sets are immutable.
type Set struct {
	said   string   // how the set was made: what is said alike holds the same strings
	above  []string // sets that hold all of this one, by how they were made
	below  []string // sets of which this one holds all
	atoms  []started
	accept func(in []bool) bool // in[i]: atom i accepts; nil for none
	err    error                // why it is not known; kept by what is made of it
}

// started is an automaton and where it begins.
type started struct {
	*automaton
	state int
}

// Pattern is the set of strings that a regular expression (RE2) matches.
func Pattern(pattern string) (Set, error) {
	a, err := newAutomaton(pattern)
	if err != nil {
		return Set{}, fmt.Errorf("read pattern: %w", err)
	}
	return Set{said: fmt.Sprintf("%q", pattern), atoms: []started{{a, a.begin()}}, accept: func(in []bool) bool { return in[0] }}, nil
}

// Literals is the set of these strings.
func Literals(texts ...string) Set {
	if len(texts) == 0 {
		return Set{}
	}
	quoted := make([]string, len(texts))
	for i, text := range texts {
		quoted[i] = regexp.QuoteMeta(text)
	}
	s, err := Pattern(`\A(?:` + strings.Join(quoted, "|") + `)\z`)
	if err != nil { // quoted text parses, unless it is longer than any pattern may be
		return Set{said: quoted[0], err: err}
	}
	return s
}

// All is the set of all strings.
func All() Set { return Set{said: "all", accept: func([]bool) bool { return true }} }

// Union is the set of the strings that are in any of sets.
func Union(sets ...Set) Set {
	return combine("or", sets, func(in []bool) bool { return slices.Contains(in, true) })
}

// Intersection is the set of the strings that are in all sets.
func Intersection(sets ...Set) Set {
	out := combine("and", sets, func(in []bool) bool { return !slices.Contains(in, false) })
	for _, s := range sets {
		out.above = append(out.above, s.said)
	}
	return out
}

// Minus is the set of the strings of s that are not in other.
func (s Set) Minus(other Set) Set {
	out := combine("not", []Set{s, other}, func(in []bool) bool { return in[0] && !in[1] })
	out.above = []string{s.said}
	return out
}

// After is the set of the strings that give one of s when prefix stands before them.
func (s Set) After(prefix string) Set {
	atoms := slices.Clone(s.atoms)
	for i, a := range atoms {
		for _, r := range prefix {
			a.state = a.next(a.state, r)
		}
		atoms[i] = a
	}
	return Set{said: fmt.Sprintf("after %q %s", prefix, s.said), atoms: atoms, accept: s.accept, err: s.err}
}

func combine(how string, sets []Set, accept func([]bool) bool) Set {
	var atoms []started
	var errs []error
	said := make([]string, len(sets))
	offsets := make([]int, len(sets)+1)
	for i, s := range sets {
		atoms, said[i], errs = append(atoms, s.atoms...), s.said, append(errs, s.err)
		offsets[i+1] = len(atoms)
	}
	return Set{said: fmt.Sprintf("%s(%s)", how, strings.Join(said, " ")), err: errors.Join(errs...), atoms: atoms, accept: func(in []bool) bool {
		of := make([]bool, len(sets))
		for i, s := range sets {
			of[i] = s.accept != nil && s.accept(in[offsets[i]:offsets[i+1]])
		}
		return accept(of)
	}}
}

// Has says whether text is in the set.
func (s Set) Has(text string) bool {
	at := make([]int, len(s.atoms))
	for i, a := range s.atoms {
		at[i] = a.state
		for _, r := range text {
			at[i] = a.next(at[i], r)
		}
	}
	return s.accepts(at)
}

func (s Set) accepts(at []int) bool {
	in := make([]bool, len(at))
	for i, a := range s.atoms {
		in[i] = a.accepts(at[i])
	}
	return s.accept != nil && s.accept(in)
}

// Within says whether every string of s is in other; if not, example is a shortest one that is not.
// The error is [ErrTooLarge], or that of a set which could not be made.
func (s Set) Within(other Set) (ok bool, example string, err error) {
	if s.err != nil || other.err != nil {
		return false, "", errors.Join(s.err, other.err)
	}
	for _, above := range append(s.above, s.said) {
		if above == other.said || slices.Contains(other.below, above) {
			return true, "", nil
		}
	}
	example, found, err := s.Minus(other).Example()
	return !found && err == nil, example, err
}
