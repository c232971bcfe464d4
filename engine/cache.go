// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"crypto/sha256"
	"sync"
)

// cacheKey names a decision: what was asked, and of which policy in which state.
type cacheKey struct {
	entryPoint        string
	request           [sha256.Size]byte
	policy, stateTick uint64
	lenient           bool
}

// cache keeps the most recent decisions in two generations: when the young one is full it becomes the old one, and what the
// old one held is forgotten.
type cache struct {
	mu         sync.Mutex
	half       int // entries per generation; zero keeps nothing
	young, old map[cacheKey]*Verdict
}

func newCache(entries int) *cache {
	return &cache{half: entries / 2, young: map[cacheKey]*Verdict{}}
}

func (c *cache) get(k cacheKey) *Verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v := c.young[k]; v != nil {
		return v
	}
	v := c.old[k]
	if v != nil {
		c.insert(k, v)
	}
	return v
}

func (c *cache) put(k cacheKey, v *Verdict) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.insert(k, v)
}

func (c *cache) insert(k cacheKey, v *Verdict) {
	if c.half == 0 {
		return
	}
	if len(c.young) >= c.half {
		c.old, c.young = c.young, make(map[cacheKey]*Verdict, c.half)
	}
	c.young[k] = v
}
