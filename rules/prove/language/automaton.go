// SPDX-License-Identifier: Apache-2.0

package language

import (
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// automaton is a deterministic automaton of one pattern whose states are made when they are first reached. A state is a set of
// instructions of the compiled pattern that wait for the next character, with the character before, as far as assertions
// (^, $, \b) look at it; or that the pattern has matched already. It is not safe for concurrent use.
type automaton struct {
	prog   *syntax.Prog
	bounds []rune // sorted; characters between two of them are not told apart
	states []state
	index  map[string]int
	steps  map[step]int
	near   map[syntax.EmptyOp]reach // of the state that was looked at last, as all its steps are asked one after another
	nearTo int
	spent  int // instructions that were looked at
}

// reach is what is reached from a state without a character.
type reach struct {
	reached []uint32
	matched bool
}

type state struct {
	matched bool // whatever follows
	waiting []uint32
	before  rune // -1 at the beginning
}

type step struct {
	state int
	class int
}

func newAutomaton(pattern string) (*automaton, error) {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, err
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return nil, err
	}
	a := &automaton{prog: prog, index: map[string]int{}, steps: map[step]int{}}
	a.bounds = boundsOf(prog)
	return a, nil
}

// begin is the state before the first character. The pattern may match from any place, so that its start waits in every state.
func (a *automaton) begin() int {
	return a.intern(state{waiting: []uint32{uint32(a.prog.Start)}, before: -1})
}

func (a *automaton) intern(s state) int {
	slices.Sort(s.waiting)
	s.waiting = slices.Compact(s.waiting)
	if s.matched {
		s = state{matched: true}
	}
	var k strings.Builder
	k.WriteString(strconv.FormatBool(s.matched) + strconv.Itoa(int(s.before)))
	for _, pc := range s.waiting {
		k.WriteString(" " + strconv.Itoa(int(pc)))
	}
	n, ok := a.index[k.String()]
	if !ok {
		n = len(a.states)
		a.states = append(a.states, s)
		a.index[k.String()] = n
	}
	return n
}

func (a *automaton) next(n int, r rune) int {
	at := step{n, a.class(r)}
	to, ok := a.steps[at]
	if !ok {
		to = a.intern(a.follow(n, r))
		a.steps[at] = to
	}
	return to
}

func (a *automaton) class(r rune) int {
	i, _ := slices.BinarySearch(a.bounds, r+1)
	return i
}

func (a *automaton) accepts(n int) bool {
	s := a.states[n]
	if s.matched {
		return true
	}
	return a.closure(n, -1).matched
}

func (a *automaton) follow(n int, r rune) state {
	if s := a.states[n]; s.matched {
		return s
	}
	near := a.closure(n, r)
	if near.matched {
		return state{matched: true}
	}
	waiting := []uint32{uint32(a.prog.Start)}
	a.spent += len(near.reached)
	for _, pc := range near.reached {
		if inst := &a.prog.Inst[pc]; inst.MatchRune(r) {
			waiting = append(waiting, inst.Out)
		}
	}
	return state{waiting: waiting, before: a.remembered(r)}
}

// remembered stands for all characters that assertions treat alike.
func (a *automaton) remembered(r rune) rune {
	switch {
	case r == '\n':
		return '\n'
	case syntax.IsWordChar(r):
		return 'a'
	}
	return ' '
}

// closure has the instructions that take a character and are reached from a state without one, and whether the pattern matches before
// next, which is -1 at the end of the text.
func (a *automaton) closure(n int, next rune) reach {
	holds := syntax.EmptyOpContext(a.states[n].before, next)
	if a.near == nil || a.nearTo != n {
		a.near, a.nearTo = map[syntax.EmptyOp]reach{}, n
	}
	near, ok := a.near[holds]
	if !ok {
		near = a.walk(a.states[n], holds)
		a.near[holds] = near
	}
	return near
}

func (a *automaton) walk(s state, holds syntax.EmptyOp) (near reach) {
	seen := map[uint32]bool{}
	todo := slices.Clone(s.waiting)
	for len(todo) > 0 {
		pc := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[pc] {
			continue
		}
		seen[pc] = true
		a.spent++
		inst := &a.prog.Inst[pc]
		switch inst.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			todo = append(todo, inst.Out, inst.Arg)
		case syntax.InstCapture, syntax.InstNop:
			todo = append(todo, inst.Out)
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(inst.Arg)&^holds == 0 {
				todo = append(todo, inst.Out)
			}
		case syntax.InstMatch:
			near.matched = true
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			near.reached = append(near.reached, pc)
		}
	}
	return near
}

// boundsOf are where the characters begin, and end, that an instruction tells from others.
func boundsOf(prog *syntax.Prog) []rune {
	var bounds []rune
	span := func(low, high rune) { bounds = append(bounds, low, high+1) }
	for i := range prog.Inst {
		inst := &prog.Inst[i]
		switch inst.Op {
		case syntax.InstRune, syntax.InstRune1:
			if len(inst.Rune) == 1 {
				span(inst.Rune[0], inst.Rune[0])
				for r := unicode.SimpleFold(inst.Rune[0]); syntax.Flags(inst.Arg)&syntax.FoldCase != 0 && r != inst.Rune[0]; r = unicode.SimpleFold(r) {
					span(r, r)
				}
			}
			for j := 0; j+1 < len(inst.Rune); j += 2 {
				span(inst.Rune[j], inst.Rune[j+1])
			}
		case syntax.InstRuneAnyNotNL:
			span('\n', '\n')
		case syntax.InstEmptyWidth:
			span('\n', '\n')
			span('0', '9')
			span('A', 'Z')
			span('_', '_')
			span('a', 'z')
		}
	}
	slices.Sort(bounds)
	return slices.Compact(bounds)
}
