// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"math/rand/v2"
)

// Random draws what a cluster draws at random, the same for the same seed.
type Random struct{ source *rand.Rand }

// NewRandom returns a source of random names.
func NewRandom(seed uint64) *Random {
	return &Random{rand.New(rand.NewPCG(seed, 0))}
}

// Hex returns n hexadecimal digits.
func (r *Random) Hex(n int) string { return r.text(n, "0123456789abcdef") }

// ID returns the id of a container or a sandbox.
func (r *Random) ID() string { return r.Hex(64) }

// UUID returns a random UUID.
func (r *Random) UUID() string {
	return fmt.Sprintf("%s-%s-4%s-%s%s-%s", r.Hex(8), r.Hex(4), r.Hex(3), r.text(1, "89ab"), r.Hex(3), r.Hex(12))
}

// Suffix returns n characters of a generated name.
func (r *Random) Suffix(n int) string { return r.text(n, "bcdfghjklmnpqrstvwxz2456789") }

// Number returns a number of up to ten decimal digits.
func (r *Random) Number() uint32 { return r.source.Uint32() }

func (r *Random) text(n int, alphabet string) string {
	out := make([]byte, n)
	for i := range out {
		out[i] = alphabet[r.source.IntN(len(alphabet))]
	}
	return string(out)
}
