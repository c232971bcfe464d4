// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"fmt"
	"regexp"
	"strings"
)

// What Kubernetes appends to generated names (k8s.io/apimachinery/pkg/util/rand and apiserver's name generator).
const (
	suffixClass   = "[bcdfghjklmnpqrstvwxz2456789]"
	minSuffix     = 1 // Kubernetes itself always appends the most
	maxSuffix     = 5
	maxBase       = 58 // a longer base of a generated name is cut
	maxHashLength = 10 // of a Deployment's pod template hash
)

// piece is a part of a name: a literal, or min to max characters of a class.
type piece struct {
	literal  string
	class    string
	min, max int
}

func literal(s string) piece { return piece{literal: s} }

// name is what the name of an object is made of.
type name []piece

// pattern returns the pattern of the name without anchors.
func (n name) pattern() string {
	var b strings.Builder
	for _, p := range n {
		b.WriteString(p.pattern())
	}
	return b.String()
}

func (p piece) pattern() string {
	switch {
	case p.class == "":
		return regexp.QuoteMeta(p.literal)
	case p.min == 1 && p.max == 1:
		return p.class
	case p.min == p.max:
		return fmt.Sprintf("%s{%d}", p.class, p.min)
	}
	return fmt.Sprintf("%s{%d,%d}", p.class, p.min, p.max)
}

// longest returns the most characters that the name can have.
func (n name) longest() int {
	total := 0
	for _, p := range n {
		total += max(len(p.literal), p.max)
	}
	return total
}

// text returns the name when it is known, else "".
func (n name) text() string {
	var b strings.Builder
	for _, p := range n {
		if p.class != "" {
			return ""
		}
		b.WriteString(p.literal)
	}
	return b.String()
}

func (n name) with(more ...piece) name { return append(append(name(nil), n...), more...) }

// cut returns the names that n can be after all beyond limit is cut off. There
// are several when the length of a part is open and the limit falls behind it.
func (n name) cut(limit int) []name {
	if n.longest() <= limit {
		return []name{n}
	}
	var all []name
	seen := map[string]bool{}
	n.lengths(nil, func(fixed name) {
		cut := name{}
		room := limit
		for _, p := range fixed {
			if len(p.literal) > room {
				p.literal = p.literal[:room]
			}
			p.min, p.max = min(p.min, room), min(p.max, room)
			room -= len(p.literal) + p.max
			if p.literal != "" || p.max > 0 {
				cut = append(cut, p)
			}
		}
		if key := cut.pattern(); !seen[key] {
			seen[key] = true
			all = append(all, cut)
		}
	})
	return all
}

// lengths calls yield for every choice of lengths.
func (n name) lengths(head name, yield func(name)) {
	if len(n) == 0 {
		yield(head)
		return
	}
	for length := n[0].min; length <= n[0].max; length++ {
		p := n[0]
		p.min, p.max = length, length
		n[1:].lengths(head.with(p), yield)
	}
}

// randomSuffix ends generated names.
var randomSuffix = piece{class: suffixClass, min: minSuffix, max: maxSuffix}

// generated returns the names that Kubernetes generates from a base.
func (n name) generated() []name {
	var all []name
	for _, base := range n.cut(maxBase) {
		all = append(all, base.with(randomSuffix))
	}
	return all
}

// static returns the name of a node's static pod, which ends in the node's.
func (n name) static() name {
	dash := n.with(literal("-"))
	return dash.with(piece{class: "[0-9a-z.-]", min: 1, max: max(1, maxHostname-dash.longest())})
}

// podNames is what the pods of a workload can be called.
type podNames []name

// pattern returns the anchored pattern of the names.
func (p podNames) pattern() string {
	bodies := make([]string, len(p))
	for i, n := range p {
		bodies[i] = n.pattern()
	}
	if len(bodies) == 1 {
		return "^" + bodies[0] + "$"
	}
	return "^(?:" + strings.Join(bodies, "|") + ")$"
}

// body returns the pattern without anchors, safe to be part of another.
func (p podNames) body() string {
	pattern := p.pattern()
	return pattern[1 : len(pattern)-1]
}

func (p podNames) text() string {
	if len(p) == 1 {
		return p[0].text()
	}
	return ""
}

func (p podNames) longest() int {
	most := 0
	for _, n := range p {
		most = max(most, n.longest())
	}
	return most
}
