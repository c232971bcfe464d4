// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"runtime"
	"testing"
	"time"
)

// TestTheLargestBufferOutlivesCollections: one is kept while large frames follow each other, and given up when they do not.
func TestTheLargestBufferOutlivesCollections(t *testing.T) {
	p := newBuffers()
	first := p.get(3 << 20)
	p.put(first)
	runtime.GC()
	runtime.GC()
	second := p.get(3 << 20)
	if &first[0] != &second[0] {
		t.Error("the next large frame has a buffer of its own")
	}
	p.put(second)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		p.largest.mu.Lock()
		gone := p.largest.b == nil
		p.largest.mu.Unlock()
		if gone {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the buffer is kept for ever")
		}
	}
}
