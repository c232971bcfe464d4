// SPDX-License-Identifier: Apache-2.0

// Package squeeze compresses a text that is written once and carried for long: it weighs all ways of writing it, where the usual
// compressors take the next good one. The same text gives the same bytes on every machine.
package squeeze

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/andybalholm/brotli/flate"
	"github.com/andybalholm/brotli/matchfinder"
)

// Gzip returns the text as one gzip member without a time or name.
func Gzip(text []byte) []byte {
	const slowest, unknownSystem = 2, 255
	out := deflate([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, slowest, unknownSystem}, text)
	out = binary.LittleEndian.AppendUint32(out, crc32.ChecksumIEEE(text))
	return binary.LittleEndian.AppendUint32(out, uint32(len(text)))
}

// deflate appends the text's blocks. Prices follow from what is written, and what
// is written from prices: blocks are cut and written anew until both have settled.
func deflate(out, text []byte) []byte {
	p := parser{text, copiesOf(text)}
	steps := p.cheapest(0, len(text), guess())
	steps = p.cheapest(0, len(text), pricesOf(text, steps))
	blocks := p.cut(block{0, steps})
	encoder := flate.NewEncoder()
	for i, b := range blocks {
		written := p.improve(b)
		out = encoder.Encode(out, p.of(written), written.matches(), i == len(blocks)-1)
	}
	return out
}

// A step writes so many bytes: one of them as itself, or all as a copy of those that lie a distance behind.
type step struct{ length, distance int }

// A block is a part of the text with prices of its own: where it starts, and its steps.
type block struct {
	from  int
	steps []step
}

// end returns where the first n steps of a block end.
func (b block) end(n int) int {
	at := b.from
	for _, s := range b.steps[:n] {
		at += s.length
	}
	return at
}

func (b block) matches() []matchfinder.Match {
	var all []matchfinder.Match
	literals := 0
	for _, s := range b.steps {
		if s.distance == 0 {
			literals++
			continue
		}
		all = append(all, matchfinder.Match{Unmatched: literals, Length: s.length, Distance: s.distance})
		literals = 0
	}
	return append(all, matchfinder.Match{Unmatched: literals})
}

// A parser looks for the cheapest steps through a text.
type parser struct {
	text   []byte
	copies [][]step // that may start at a place
}

// of returns the text of a block.
func (p parser) of(b block) []byte {
	return p.text[b.from:b.end(len(b.steps))]
}

// size returns the bytes of a block, written alone.
func (p parser) size(b block) int {
	return len(flate.NewEncoder().Encode(nil, p.of(b), b.matches(), true))
}

// improve returns the smallest of what a few rounds find, each with the prices of the last.
func (p parser) improve(b block) block {
	const rounds = 5
	best, size, to := b, p.size(b), b.end(len(b.steps))
	for range rounds {
		b = block{b.from, p.cheapest(b.from, to, pricesOf(p.text[b.from:to], b.steps))}
		if n := p.size(b); n < size {
			best, size = b, n
		}
	}
	return best
}

// cut takes a block apart where that makes it smaller, and its parts again.
func (p parser) cut(b block) []block {
	const parts = 16
	best, size := 0, p.size(b)
	for i := 1; i < parts; i++ {
		n := len(b.steps) * i / parts
		first, second := b.at(n)
		if both := p.size(first) + p.size(second); both < size {
			best, size = n, both
		}
	}
	if best == 0 {
		return []block{b}
	}
	first, second := b.at(best)
	return append(p.cut(first), p.cut(second)...)
}

// at returns both parts of a block.
func (b block) at(n int) (first, second block) {
	return block{b.from, b.steps[:n]}, block{b.end(n), b.steps[n:]}
}

// cheapest returns the steps from one place to another that cost the least.
func (p parser) cheapest(from, to int, c *prices) []step {
	type arrival struct{ cost, length, distance int }
	arrivals := make([]arrival, to-from+1)
	arrive := func(at, cost, length, distance int) {
		if a := &arrivals[at]; a.length == 0 || cost < a.cost {
			*a = arrival{cost, length, distance}
		}
	}
	for i := range arrivals[1:] {
		cost := arrivals[i].cost
		arrive(i+1, cost+c.literal(p.text[from+i]), 1, 0)
		length := shortest
		for _, s := range p.copies[from+i] {
			far := cost + c.distance(s.distance)
			for ; length <= s.length && i+length < len(arrivals); length++ {
				arrive(i+length, far+c.length(length), length, s.distance)
			}
		}
	}
	steps := make([]step, len(arrivals))
	first := len(steps)
	for i := to - from; i > 0; i -= arrivals[i].length {
		first--
		steps[first] = step{arrivals[i].length, arrivals[i].distance}
	}
	return steps[first:]
}
