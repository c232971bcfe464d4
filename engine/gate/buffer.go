// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"bufio"
	"io"
	"math/bits"
	"sync"
)

// buffers keeps memory for frames, by powers of two from 1 KiB on: megabytes that come and go by the second would keep the
// collector busy.
type buffers struct {
	classes [maxBufferBits - minBufferBits + 1]sync.Pool
	readers sync.Pool // of answers
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

// answerAhead is what is read of the agent's answers at once, in bytes: an answer of 64 KiB, with what is around it.
const answerAhead = 64<<10 + 128

// reader returns a reader of answers from in. A host that connects over and over leaves no garbage.
func (p *buffers) reader(in io.Reader) *bufio.Reader {
	r, ok := p.readers.Get().(*bufio.Reader)
	if !ok {
		return bufio.NewReaderSize(in, answerAhead)
	}
	r.Reset(in)
	return r
}

// putReader takes back what reader has given and nobody uses any more.
func (p *buffers) putReader(r *bufio.Reader) {
	r.Reset(nil)
	p.readers.Put(r)
}
