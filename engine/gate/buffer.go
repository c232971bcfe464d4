// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"math/bits"
	"sync"
)

// buffers keeps memory for frames, by powers of two from 1 KiB on: megabytes that come and go by the second would keep the
// collector busy.
type buffers struct {
	classes [maxBufferBits - minBufferBits + 1]sync.Pool
}

const (
	minBufferBits = 10
	maxBufferBits = 22
	bufferRoom    = 64 // bytes above the power of two, for a header
)

// get returns n bytes of any content.
func (p *buffers) get(n int) []byte {
	class := max(bits.Len(uint(max(n-bufferRoom-1, 0)))-minBufferBits, 0)
	if class >= len(p.classes) {
		return make([]byte, n)
	}
	if b, ok := p.classes[class].Get().(*[]byte); ok {
		return (*b)[:n]
	}
	return make([]byte, n, bufferRoom+1<<(class+minBufferBits))
}

// put takes back what get has given and nobody uses any more.
func (p *buffers) put(b []byte) {
	class := bits.Len(uint(max(cap(b)-bufferRoom-1, 0))) - minBufferBits
	if class < 0 || class >= len(p.classes) || cap(b) != bufferRoom+1<<(class+minBufferBits) {
		return
	}
	b = b[:0]
	p.classes[class].Put(&b)
}
