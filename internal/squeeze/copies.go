// SPDX-License-Identifier: Apache-2.0

package squeeze

// Bounds of deflate's copies.
const (
	window            = 1 << 15
	shortest, longest = 3, 258
)

// copiesOf returns for each place of a text the copies that may start there: each is longer than those before it, from further away.
func copiesOf(text []byte) [][]step {
	const most = 1 << 11 // places that are looked at for one
	all := make([][]step, len(text))
	last := map[[shortest]byte]int{}
	before := make([]int, len(text)) // where the same three bytes stood, plus one
	for i := 0; i+shortest <= len(text); i++ {
		key := [shortest]byte(text[i:])
		before[i] = last[key]
		last[key] = i + 1
		found, limit := shortest-1, min(longest, len(text)-i)
		tries := most
		for next := before[i]; next > 0 && i-next < window && found < limit && tries > 0; tries-- {
			from := next - 1
			next = before[from]
			if text[from+found] != text[i+found] {
				continue
			}
			if n := common(text[from:], text[i:i+limit]); n > found {
				found = n
				all[i] = append(all[i], step{n, i - from})
			}
		}
	}
	return all
}

// common returns how many bytes two texts start with alike.
func common(a, b []byte) int {
	for i := range b {
		if a[i] != b[i] {
			return i
		}
	}
	return len(b)
}
