// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"sync"
)

// chunkSize is the data under one hash block of the lowest level: what a worker hashes at a time.
const chunkSize = fanout * BlockSize

// emitFunc takes a finished hash block. Level 0 is the lowest; indexes within a level rise from 0.
type emitFunc func(level int, index int64, block []byte) error

// builder turns data, given in order, into a tree. Data is cut into chunks that workers hash at once; a collector takes
// the chunks in order and builds the levels above. Memory is a few chunks and one block per level, whatever the size.
//
// One goroutine feeds the builder and then calls finish or abort, exactly once.
type builder struct {
	salt  []byte
	emit  emitFunc
	free  chan *chunk // to be filled
	work  chan *chunk // to be hashed, by any worker
	order chan *chunk // the same, to be collected in order
	fill  *chunk      // being filled by write

	workers   sync.WaitGroup
	collected chan struct{}

	// Owned by the collector until collected is closed.
	hash   hash.Hash
	levels []level
	err    error
}

// chunk is data and the hash block made of it.
type chunk struct {
	data   [chunkSize]byte
	n      int // bytes of data in use, a multiple of BlockSize once submitted
	hashes [BlockSize]byte
	hashed chan struct{}
}

// level is the hash block being filled at a height of the tree.
type level struct {
	block  [BlockSize]byte
	used   int   // hashes in block
	full   int64 // blocks emitted
	hashes int64 // ever added
}

func newBuilder(o Options, emit emitFunc) *builder {
	depth := 2 * o.Workers
	b := &builder{
		salt: o.Salt, emit: emit, hash: sha256.New(),
		free: make(chan *chunk, depth), work: make(chan *chunk, depth), order: make(chan *chunk, depth),
		collected: make(chan struct{}),
	}
	for range depth {
		b.free <- &chunk{hashed: make(chan struct{}, 1)}
	}
	for range o.Workers {
		b.workers.Go(b.hashChunks)
	}
	go b.collect()
	return b
}

// readFrom takes exactly size bytes from r, which must end there.
func (b *builder) readFrom(r io.Reader, size int64) error {
	for left := size; left > 0; {
		c := <-b.free
		c.n = int(min(left, chunkSize))
		n, err := io.ReadFull(r, c.data[:c.n])
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return fmt.Errorf("data ends after %d of %d bytes: %w", size-left+int64(n), size, io.ErrUnexpectedEOF)
		}
		if err != nil {
			return err
		}
		left -= int64(c.n)
		b.submit(c)
	}
	switch n, err := io.ReadFull(r, make([]byte, 1)); {
	case n > 0:
		return fmt.Errorf("data goes on after %d bytes", size)
	case err != io.EOF:
		return err
	}
	return nil
}

// Write takes the next bytes of data. It never fails; a failure to emit is finish's to report.
func (b *builder) Write(p []byte) (int, error) {
	written := len(p)
	for len(p) > 0 {
		if b.fill == nil {
			b.fill = <-b.free
			b.fill.n = 0
		}
		n := copy(b.fill.data[b.fill.n:], p)
		b.fill.n += n
		p = p[n:]
		if b.fill.n == chunkSize {
			b.submit(b.fill)
			b.fill = nil
		}
	}
	return written, nil
}

func (b *builder) submit(c *chunk) {
	b.order <- c
	b.work <- c
}

// finish hashes what is left, which must be whole blocks, and returns the root.
func (b *builder) finish() (Digest, error) {
	if b.fill != nil && b.fill.n%BlockSize != 0 {
		b.abort()
		return Digest{}, &SizeError{Size: int64(b.fill.n)}
	}
	if b.fill != nil {
		b.submit(b.fill)
	}
	b.abort()
	return b.root()
}

// abort ends the goroutines once they have done what was submitted.
func (b *builder) abort() {
	close(b.work)
	close(b.order)
	b.workers.Wait()
	<-b.collected
}

func (b *builder) hashChunks() {
	h := sha256.New()
	for c := range b.work {
		clear(c.hashes[:])
		for n := 0; n < c.n; n += BlockSize {
			b.sum(h, c.data[n:n+BlockSize], c.hashes[n/BlockSize*digestSize:])
		}
		c.hashed <- struct{}{}
	}
}

// sum puts the hash of block, salted, at the start of out.
func (b *builder) sum(h hash.Hash, block, out []byte) {
	h.Reset()
	h.Write(b.salt)
	h.Write(block)
	h.Sum(out[:0])
}

func (b *builder) collect() {
	defer close(b.collected)
	b.levels = []level{{}}
	for c := range b.order {
		<-c.hashed
		l := &b.levels[0]
		l.hashes += int64(c.n / BlockSize)
		l.block, l.used = c.hashes, c.n/BlockSize
		if c.n == chunkSize {
			b.flush(0)
		}
		b.free <- c
	}
}

// flush emits the block of a level and adds its hash to the level above.
func (b *builder) flush(at int) {
	l := &b.levels[at]
	if b.err == nil {
		b.err = b.emit(at, l.full, l.block[:])
	}
	l.full++
	var sum [digestSize]byte
	b.sum(b.hash, l.block[:], sum[:])
	clear(l.block[:])
	l.used = 0

	if at+1 == len(b.levels) {
		b.levels = append(b.levels, level{})
	}
	above := &b.levels[at+1]
	copy(above.block[above.used*digestSize:], sum[:])
	above.used++
	above.hashes++
	if above.used == fanout {
		b.flush(at + 1)
	}
}

// root flushes what is left, from the bottom up, until a level has a single hash: the root, which is not stored.
func (b *builder) root() (Digest, error) {
	for at := 0; at < len(b.levels); at++ {
		switch l := &b.levels[at]; {
		case l.hashes == 0:
			return Digest{}, &SizeError{}
		case l.hashes == 1:
			return Digest(l.block[:digestSize]), b.err
		case l.used > 0:
			b.flush(at)
		}
	}
	return Digest{}, b.err
}
