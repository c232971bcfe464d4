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

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
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
	waiting map[uint32]waiter
	over    bool
}

// waiter is who waits for an answer. What it has is called on the goroutine that reads answers, done exactly once.
type waiter struct {
	done func(outcome)
	// stream takes a long answer that is no error as it comes, before done: a frame, whose header is in's next headerLen bytes, with an
	// encoded Response of length bytes. It reads all of it. An error is that of in. Nil for who wants the whole.
	stream func(in *bufio.Reader, length int) error
}

// outcome is how a call ended: with the agent's answer, or with an error as agentConn.call gives them.
type outcome struct {
	reply *reply
	err   error
}

func newAgentLink(conn net.Conn, b *buffers, answers *share) *agentLink {
	l := &agentLink{conn: conn, buffers: b, answers: answers, waiting: map[uint32]waiter{}}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	go l.read()
	return l
}

// errOtherPolicy says that what was judged does not count any more by the time that it could be sent.
var errOtherPolicy = status.Error(codes.PermissionDenied, "the policy was replaced while the request was on its way; send it again")

// errOver says that a connection ended before a request was sent on it.
var errOver = errors.New("connection is over")

// register takes the next stream id, unless the connection is over. The caller holds writing: ids rise from frame to frame.
func (l *agentLink) register(w waiter) (uint32, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over || l.lastID > math.MaxUint32-4 {
		return 0, false
	}
	if l.lastID == 0 {
		l.lastID = 1
	} else {
		l.lastID += 2
	}
	l.waiting[l.lastID] = w
	return l.lastID, true
}

// take gives who waits for an answer to whoever asks first.
func (l *agentLink) take(id uint32) (w waiter, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w, ok = l.waiting[id]
	delete(l.waiting, id)
	return w, ok
}

// underWay returns how many calls wait for their answer.
func (l *agentLink) underWay() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting)
}

// send writes a request and returns its stream id; w is called with its outcome, possibly before send returns. After errOver it is
// not, nor after errOtherPolicy. After an error in the middle nobody knows how much of the request arrived, and the connection is over.
func (l *agentLink) send(ctx context.Context, j judged, w waiter) (uint32, error) {
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
	if j.stands != nil && !j.stands() {
		return 0, errOtherPolicy
	}
	id, ok := l.register(w)
	if !ok {
		return 0, errOver
	}
	putHeader(start, length, id, typeRequest) // the first part shares start's memory
	if err := writeParts(l.conn, parts); err != nil {
		l.end(err)
	}
	return id, nil
}

// isOver reports whether the connection has ended.
func (l *agentLink) isOver() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over
}

// end closes the connection for a reason, which is the outcome of all calls that wait; the first counts.
func (l *agentLink) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	l.over = true
	l.cancel()
	l.conn.Close()
	for id, w := range l.waiting {
		delete(l.waiting, id)
		go w.done(lost(err)) // it may write to a client, which may take its time
	}
}

func lost(err error) outcome { return outcome{err: fmt.Errorf("%w: %w", ErrAgentLost, err)} }

// read hands each answer to who waits for it, until the connection ends.
func (l *agentLink) read() {
	in := l.buffers.answers.get(l.conn)
	defer l.buffers.answers.put(in)
	for {
		id, length, err := peekHeader(in)
		if err != nil {
			l.end(err)
			return
		}
		w, waits := l.take(id)
		var o outcome
		if waits && w.stream != nil && length >= minStreamed && isPayload(in, length) {
			err = w.stream(in, length)
		} else if _, err = in.Discard(headerLen); err != nil { // it is there
		} else if o.reply, err = l.readAnswer(in, length); err == nil {
			o.reply, o.err = o.reply.parsed()
		}
		switch {
		case err != nil:
			o = lost(err)
			l.end(err)
		case !waits:
			o.release()
		}
		if waits {
			w.done(o)
		}
		if err != nil {
			return
		}
	}
}

// minStreamed is the length of answers, in bytes, that are passed on as they come: their reader starts before all is there.
const minStreamed = 16 << 10

// isPayload reports whether the Response of length bytes in the frame that comes next is nothing but a payload.
func isPayload(in *bufio.Reader, length int) bool {
	head, err := in.Peek(headerLen + 1 + binary.MaxVarintLen32)
	if err != nil {
		return false
	}
	head = head[headerLen:]
	number, kind, n := protowire.ConsumeTag(head)
	if n < 0 || number != fieldAnswer || kind != protowire.BytesType {
		return false
	}
	size, m := protowire.ConsumeVarint(head[n:])
	return m > 0 && size == uint64(length-n-m)
}

// peekHeader waits for a frame and looks at its header.
func peekHeader(in *bufio.Reader) (id uint32, length int, err error) {
	header, err := in.Peek(headerLen)
	if err != nil {
		return 0, 0, err
	}
	length = int(binary.BigEndian.Uint32(header))
	if length > maxMessage || header[8] != typeResponse {
		return 0, 0, fmt.Errorf("frame of type %d and %d bytes from the agent: %w", header[8], length, ErrFrame)
	}
	return binary.BigEndian.Uint32(header[4:]), length, nil
}

func (l *agentLink) readAnswer(in *bufio.Reader, length int) (*reply, error) {
	r := &reply{buffers: l.buffers}
	if l.answers != nil {
		var ok bool
		if r.bytes, ok = l.answers.take(l.ctx, int64(length)); !ok {
			return nil, net.ErrClosed
		}
	}
	r.frame = l.buffers.get(headerLen + length)
	if _, err := io.ReadFull(in, r.frame[headerLen:]); err != nil {
		r.release()
		return nil, err
	}
	return r, nil
}
