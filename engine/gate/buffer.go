// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"bufio"
	"io"
	"math/bits"
	"sync"
	"time"
)

// buffers keeps memory for frames, by powers of two from 1 KiB on: megabytes that come and go by the second would keep the
// collector busy.
type buffers struct {
	classes           [maxBufferBits - minBufferBits + 1]sync.Pool
	largest           spare // of the last class, beside its pool
	requests, answers readers
}

func newBuffers() *buffers {
	return &buffers{requests: readers{size: requestAhead}, answers: readers{size: answerAhead}}
}

const (
	minBufferBits = 10
	maxBufferBits = 22
	bufferRoom    = 64 // bytes above the power of two, for a header
)

// What is read ahead, in bytes: most requests, and an answer of 64 KiB with what is around it.
const (
	requestAhead = 16 << 10
	answerAhead  = 64<<10 + 128
)

// get returns n bytes of any content.
func (p *buffers) get(n int) []byte {
	class := max(bits.Len(uint(max(n-bufferRoom-1, 0)))-minBufferBits, 0)
	if class >= len(p.classes) {
		return make([]byte, n)
	}
	if class == len(p.classes)-1 {
		if b := p.largest.take(); b != nil {
			return b[:n]
		}
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
	if class == len(p.classes)-1 && p.largest.keep(b) {
		return
	}
	p.classes[class].Put(&b)
}

// spare is one buffer that is kept while it is used again within a second. One in a [sync.Pool] is gone after two collections, and
// with the next of this size in its place there are two soon.
type spare struct {
	mu   sync.Mutex
	b    []byte
	drop *time.Timer
}

// take returns the buffer, nil if there is none.
func (s *spare) take() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.b
	s.b = nil
	return b
}

// keep reports whether it keeps b: it does if it has none.
func (s *spare) keep(b []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.b != nil {
		return false
	}
	s.b = b
	if s.drop == nil {
		s.drop = time.AfterFunc(time.Second, func() { s.take() })
	} else {
		s.drop.Reset(time.Second)
	}
	return true
}

// readers keeps readers of connections that have ended, at most keptReaders of them: of a host that connects over and over
// the collector would empty a [sync.Pool] as fast.
type readers struct {
	size int // bytes that one reads ahead
	mu   sync.Mutex
	free []*bufio.Reader
}

// keptReaders is as many as there are connections by default.
const keptReaders = 16

// get returns a reader of in.
func (p *readers) get(in io.Reader) *bufio.Reader {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.free) - 1
	if last < 0 {
		return bufio.NewReaderSize(in, p.size)
	}
	r := p.free[last]
	p.free = p.free[:last]
	r.Reset(in)
	return r
}

// put takes back what get has given and nobody uses any more.
func (p *readers) put(r *bufio.Reader) {
	r.Reset(nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) < keptReaders {
		p.free = append(p.free, r)
	}
}
