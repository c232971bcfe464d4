// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"bytes"
	"context"
	"io"
	"sync"
)

// pipeSize is how many bytes a pipe holds before a write blocks.
const pipeSize = 1 << 20

// pipe is a pipe of the kernel as the two ends see it: writes block while it is full, reads while it is empty and open.
type pipe struct {
	mu      sync.Mutex
	data    bytes.Buffer
	closed  bool
	changed chan struct{}
}

func newPipe() *pipe {
	return &pipe{changed: make(chan struct{})}
}

// write puts all of p into the pipe. On a closed pipe it is io.ErrClosedPipe.
func (p *pipe) write(ctx context.Context, data []byte) (int, error) {
	written := 0
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return written, io.ErrClosedPipe
		}
		if n := min(len(data)-written, pipeSize-p.data.Len()); n > 0 {
			p.data.Write(data[written : written+n])
			written += n
			p.wake()
		}
		changed := p.changed
		p.mu.Unlock()
		if written == len(data) {
			return written, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return written, ctx.Err()
		}
	}
}

// read takes at most len(data) bytes, at least one; io.EOF when the pipe is closed and empty.
func (p *pipe) read(ctx context.Context, data []byte) (int, error) {
	for {
		p.mu.Lock()
		if p.data.Len() > 0 {
			n, err := p.data.Read(data)
			p.wake()
			p.mu.Unlock()
			return n, err
		}
		closed, changed := p.closed, p.changed
		p.mu.Unlock()
		if closed {
			return 0, io.EOF
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// close ends writing; what is in the pipe can still be read.
func (p *pipe) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.wake()
}

// wake tells all that wait for a change. The lock is held.
func (p *pipe) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// end is one end of a pipe as a program sees it.
type end struct {
	ctx  context.Context
	pipe *pipe
}

func (e end) Read(data []byte) (int, error)  { return e.pipe.read(e.ctx, data) }
func (e end) Write(data []byte) (int, error) { return e.pipe.write(e.ctx, data) }
