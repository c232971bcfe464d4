// SPDX-License-Identifier: Apache-2.0

package language

import (
	"encoding/binary"
	"slices"
)

// node is a combination of states that was reached, and how.
type node struct {
	at   []int
	from int // index of the node before it
	by   rune
}

// Example is a shortest string of the set; found is false if the set is empty. The error is [ErrTooLarge], or that of a set which
// could not be made.
func (s Set) Example() (text string, found bool, err error) {
	if s.err != nil {
		return "", false, s.err
	}
	letters := s.letters()
	first := make([]int, len(s.atoms))
	for i, a := range s.atoms {
		first[i] = a.state
	}
	nodes, most := []node{{at: first, from: -1}}, s.spent()+MaxSpent
	seen := map[string]bool{key(first): true}
	for n := 0; n < len(nodes); n++ {
		if s.accepts(nodes[n].at) {
			return spell(nodes, n), true, nil
		}
		for _, letter := range letters {
			at := make([]int, len(s.atoms))
			for i, a := range s.atoms {
				at[i] = a.next(nodes[n].at[i], letter)
			}
			if k := key(at); !seen[k] {
				seen[k] = true
				nodes = append(nodes, node{at, n, letter})
			}
		}
		if len(nodes) > MaxStates || n*len(letters) > MaxSteps || s.spent() > most {
			return "", false, ErrTooLarge
		}
	}
	return "", false, nil
}

func (s Set) spent() int {
	n := 0
	for _, a := range s.atoms {
		n += a.automaton.spent
	}
	return n
}

func key(at []int) string {
	var raw []byte
	for _, state := range at {
		raw = binary.AppendUvarint(raw, uint64(state))
	}
	return string(raw)
}

func spell(nodes []node, n int) string {
	var text []rune
	for ; nodes[n].from >= 0; n = nodes[n].from {
		text = append(text, nodes[n].by)
	}
	slices.Reverse(text)
	return string(text)
}

// letters has one character of each class that the patterns do not tell apart, those first that are easy to read.
func (s Set) letters() []rune {
	bounds := []rune{0, firstSurrogate, lastSurrogate + 1}
	for _, a := range s.atoms {
		bounds = append(bounds, a.bounds...)
	}
	slices.Sort(bounds)
	bounds = slices.Compact(bounds)
	var letters []rune
	for i, low := range bounds {
		high := rune(maxRune + 1)
		if i+1 < len(bounds) {
			high = bounds[i+1]
		}
		if low != firstSurrogate && low < high {
			letters = append(letters, readable(low, high))
		}
	}
	slices.SortStableFunc(letters, func(a, b rune) int { return rank(a) - rank(b) })
	return letters
}

const (
	firstSurrogate = 0xD800
	lastSurrogate  = 0xDFFF
	maxRune        = 0x10FFFF
)

// readable picks a character from low up to, not including, high.
func readable(low, high rune) rune {
	for _, span := range [][2]rune{{'a', 'z'}, {'0', '9'}, {'A', 'Z'}, {'!', '~'}} {
		if first := max(low, span[0]); first <= span[1] && first < high {
			return first
		}
	}
	return low
}

func rank(r rune) int {
	switch {
	case 'a' <= r && r <= 'z':
		return 0
	case '0' <= r && r <= '9':
		return 1
	case '!' <= r && r <= '~':
		return 2
	}
	return 3
}
