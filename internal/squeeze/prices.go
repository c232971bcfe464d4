// SPDX-License-Identifier: Apache-2.0

package squeeze

import "math/bits"

// bit is the price of one bit: prices are whole numbers, which are the same on every machine.
const bit = 1 << 8

// Symbols of deflate, and how many.
const (
	firstLength = 257
	lengths     = firstLength + 29
	distances   = 30
	longestCode = 15
)

// prices say what each symbol costs, with the bits that follow it.
type prices struct {
	symbols   [lengths]int // bytes, the end, lengths
	distances [distances]int
}

func (p *prices) literal(b byte) int { return p.symbols[b] }

func (p *prices) length(n int) int {
	code, extra := lengthCode(n)
	return p.symbols[firstLength+code] + extra*bit
}

func (p *prices) distance(n int) int {
	code, extra := distanceCode(n)
	return p.distances[code] + extra*bit
}

// guess returns prices for a text that was not yet written.
func guess() *prices {
	var p prices
	for i := range p.symbols {
		p.symbols[i] = 6 * bit
	}
	for i := range p.distances {
		p.distances[i] = 5 * bit
	}
	return &p
}

// pricesOf returns the prices in a text's own symbols.
func pricesOf(text []byte, steps []step) *prices {
	var p prices
	p.symbols[firstLength-1] = 1 // the end
	for _, s := range steps {
		if s.distance == 0 {
			p.symbols[text[0]]++
		} else {
			length, _ := lengthCode(s.length)
			distance, _ := distanceCode(s.distance)
			p.symbols[firstLength+length]++
			p.distances[distance]++
		}
		text = text[s.length:]
	}
	price(p.symbols[:])
	price(p.distances[:])
	return &p
}

// price makes prices of numbers: the rarer, the dearer.
func price(numbers []int) {
	sum := 0
	for _, n := range numbers {
		sum += n
	}
	for i, n := range numbers {
		numbers[i] = longestCode * bit
		if n > 0 {
			numbers[i] = max(log2(sum)-log2(n), bit)
		}
	}
}

// log2 returns the binary logarithm of a number from 1 to 2³², as a price.
func log2(n int) int {
	whole := bits.Len(uint(n)) - 1
	price := whole * bit
	part := uint64(n) << 31 >> whole // from 1 to 2, with 31 bits behind the point
	for b := bit / 2; b > 0; b /= 2 {
		if part = part * part >> 31; part >= 1<<32 {
			part >>= 1
			price += b
		}
	}
	return price
}

// lengthCode returns the code of a length, and how many bits follow it.
func lengthCode(n int) (code, extra int) {
	if n == longest {
		return 28, 0
	}
	return class(n-shortest, 4)
}

// distanceCode returns the code of a distance, and how many bits follow it.
func distanceCode(n int) (code, extra int) {
	return class(n-1, 2)
}

// class numbers the classes of numbers, so many of each size from twice that on, and says by how many bits its members differ.
func class(n, perSize int) (class, extra int) {
	if n < 2*perSize {
		return n, 0
	}
	extra = bits.Len(uint(n)) - bits.Len(uint(perSize))
	return extra*perSize + n>>extra, extra
}
