// SPDX-License-Identifier: Apache-2.0

// Package recent keeps what was asked for last, within a bound.
package recent

import "sync"

// Map keeps the most recent entries in two generations: when the young one is full it becomes the old one, and what the old one held
// is forgotten. It is safe for concurrent use.
type Map[K comparable, V any] struct {
	mu         sync.Mutex
	half       int // entries per generation; zero keeps nothing
	young, old map[K]V
}

// New makes a map of that many entries at most; fewer than two keep nothing.
func New[K comparable, V any](entries int) *Map[K, V] {
	return &Map[K, V]{half: max(0, entries/2), young: map[K]V{}}
}

// Get returns the value of a key, which counts as new again.
func (m *Map[K, V]) Get(k K) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok := m.young[k]; ok {
		return v, true
	}
	v, ok := m.old[k]
	if ok {
		m.insert(k, v)
	}
	return v, ok
}

// Put keeps a value.
func (m *Map[K, V]) Put(k K, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.insert(k, v)
}

// Clear forgets all entries.
func (m *Map[K, V]) Clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.young, m.old = map[K]V{}, map[K]V{}
}

func (m *Map[K, V]) insert(k K, v V) {
	if m.half == 0 {
		return
	}
	if len(m.young) >= m.half {
		m.old, m.young = m.young, make(map[K]V, m.half)
	}
	m.young[k] = v
}
