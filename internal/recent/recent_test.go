// SPDX-License-Identifier: Apache-2.0

package recent

import "testing"

func TestWhatIsAskedForStays(t *testing.T) {
	m := New[int, string](8)
	m.Put(0, "asked for")
	m.Put(1, "not")
	for i := 2; i < 100; i++ {
		m.Put(i, "")
		if v, ok := m.Get(0); !ok || v != "asked for" {
			t.Fatalf("after %d others: %q, %v", i-1, v, ok)
		}
		if n := len(m.young) + len(m.old); n > 8 {
			t.Fatalf("%d entries are kept", n)
		}
	}
	if _, ok := m.Get(1); ok {
		t.Error("what nobody asked for is kept for ever")
	}
}

func TestNoRoomKeepsNothing(t *testing.T) {
	for _, entries := range []int{-1, 0, 1} {
		m := New[int, int](entries)
		m.Put(1, 1)
		if _, ok := m.Get(1); ok {
			t.Errorf("a map of %d entries keeps one", entries)
		}
	}
}

func TestClearForgetsAll(t *testing.T) {
	m := New[int, int](4)
	for i := range 4 { // of both generations
		m.Put(i, i)
	}
	m.Clear()
	for i := range 4 {
		if _, ok := m.Get(i); ok {
			t.Errorf("%d is kept", i)
		}
	}
}
