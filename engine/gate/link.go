// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"time"
)

// agentLink is one live connection to the agent with the calls that wait on it.
type agentLink struct {
	conn    net.Conn
	buffers *buffers
	answers *share
	ctx     context.Context // ends with the connection
	cancel  context.CancelFunc

	writing sync.Mutex // held for one frame

	mu      sync.Mutex
	lastID  uint32
	waiting map[uint32]chan *reply // each takes one
	over    bool

	ended chan struct{} // closed after err is set
	err   error
}

func newAgentLink(conn net.Conn, b *buffers, answers *share) *agentLink {
	l := &agentLink{conn: conn, buffers: b, answers: answers, waiting: map[uint32]chan *reply{}, ended: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	go l.read()
	return l
}

// errOver says that a connection ended before a request was sent on it.
var errOver = errors.New("connection is over")

// register takes the next stream id, unless the connection is over. The caller holds writing: ids rise from frame to frame.
func (l *agentLink) register() (uint32, chan *reply, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over || l.lastID > math.MaxUint32-4 {
		return 0, nil, false
	}
	if l.lastID == 0 {
		l.lastID = 1
	} else {
		l.lastID += 2
	}
	answers := make(chan *reply, 1)
	l.waiting[l.lastID] = answers
	return l.lastID, answers, true
}

// forget stops waiting for an answer, which may have come meanwhile.
func (l *agentLink) forget(id uint32, answers chan *reply) {
	l.mu.Lock()
	delete(l.waiting, id)
	l.mu.Unlock()
	select {
	case r := <-answers:
		r.release()
	default:
	}
}

// send writes a request and returns its stream id and where the answer will come. After an error other than errOver nobody knows how
// much of it arrived, and the connection is over.
func (l *agentLink) send(ctx context.Context, j judged) (uint32, chan *reply, error) {
	timeout := time.Duration(0)
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(deadline), 1)
	}
	start := appendRequest(l.buffers.get(1 << minBufferBits)[:headerLen], j.method.Service, j.method.Name, timeout, len(j.head)+len(j.tail))
	defer l.buffers.put(start)
	length := len(start) - headerLen + len(j.head) + len(j.tail)
	parts := net.Buffers{start, j.head, j.tail}
	if len(j.tail) == 0 && len(j.head) <= cap(start)-len(start) {
		parts = net.Buffers{append(start, j.head...)}
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	id, answers, ok := l.register()
	if !ok {
		return 0, nil, errOver
	}
	putHeader(start, length, id, typeRequest) // the first part shares start's memory
	if _, err := parts.WriteTo(l.conn); err != nil {
		l.end(err)
		return 0, nil, fmt.Errorf("%w: %w", ErrAgentLost, err)
	}
	return id, answers, nil
}

// isOver reports whether the connection has ended.
func (l *agentLink) isOver() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over
}

// end closes the connection for a reason; the first counts.
func (l *agentLink) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	l.over, l.err = true, err
	l.cancel()
	l.conn.Close()
	close(l.ended)
}

// read hands each answer to who waits for it, until the connection ends.
func (l *agentLink) read() {
	in := bufio.NewReaderSize(l.conn, readAhead)
	for {
		id, r, err := l.readAnswer(in)
		if err != nil {
			l.end(err)
			return
		}
		l.mu.Lock()
		answers := l.waiting[id]
		delete(l.waiting, id)
		if answers != nil {
			answers <- r
		}
		l.mu.Unlock()
		if answers == nil {
			r.release()
		}
	}
}

func (l *agentLink) readAnswer(in *bufio.Reader) (uint32, *reply, error) {
	var header [headerLen]byte
	if _, err := io.ReadFull(in, header[:]); err != nil {
		return 0, nil, err
	}
	length := int(binary.BigEndian.Uint32(header[:]))
	if length > maxMessage || header[8] != typeResponse {
		return 0, nil, fmt.Errorf("frame of type %d and %d bytes from the agent: %w", header[8], length, ErrFrame)
	}
	r := &reply{buffers: l.buffers}
	if l.answers != nil {
		var ok bool
		if r.bytes, ok = l.answers.take(l.ctx, int64(length)); !ok {
			return 0, nil, net.ErrClosed
		}
	}
	r.frame = l.buffers.get(headerLen + length)
	if _, err := io.ReadFull(in, r.frame[headerLen:]); err != nil {
		r.release()
		return 0, nil, err
	}
	return binary.BigEndian.Uint32(header[4:]), r, nil
}
