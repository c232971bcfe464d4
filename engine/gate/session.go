// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto"
)

const (
	maxDiscard = 16 << 20 // bytes; a longer frame ends the connection instead of being skipped
)

// session is one client's connection. It takes complete REQUEST frames with odd, rising stream ids; anything else ends it, and
// with it the agent connection that is its own.
type session struct {
	gate  *Gate
	conn  net.Conn
	in    *bufio.Reader // of conn
	agent agentConn

	requests, bytes, decoded *share
	evaluating               chan struct{} // holds an element for each request that is being judged

	ctx   context.Context // ends with the connection
	close context.CancelFunc

	writing sync.Mutex // held for one answer

	refused *rate.Limiter // refused requests that cost nothing
	owed    atomic.Int64  // nanoseconds to wait for others, before the next frame is read

	header [headerLen]byte
	lastID uint32
}

func newSession(ctx context.Context, g *Gate, conn net.Conn) *session {
	widen(conn)
	conn = quick(conn)
	s := &session{
		gate: g, conn: conn, in: g.buffers.requests.get(conn),
		agent:    agentConn{dial: g.agent, buffers: g.buffers, answers: g.answers.share()},
		requests: g.requests.share(), bytes: g.bytes.share(), decoded: g.decoded.share(),
		evaluating: make(chan struct{}, evaluations), refused: rate.NewLimiter(refusedRate, refusedBurst),
	}
	s.ctx, s.close = context.WithCancel(ctx)
	context.AfterFunc(s.ctx, func() {
		conn.Close()
		s.agent.close()
	})
	return s
}

// run serves the connection until it ends.
func (s *session) run() {
	defer func() {
		s.close()
		s.agent.close()
		s.gate.buffers.requests.put(s.in)
		s.gate.mu.Lock()
		delete(s.gate.sessions, s)
		s.gate.mu.Unlock()
	}()
	for {
		if err := s.next(); err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && s.gate.logLimit.Allow() {
				s.gate.log.Warn("client connection closed", "peer", peerName(s.conn), "error", err)
			}
			return
		}
	}
}

// untilWritten waits for an answer that is on its way: a client that does not take its answers gets no more of them.
func (s *session) untilWritten() {
	s.writing.Lock()
	defer s.writing.Unlock()
}

// next reads one whole frame and sets its request on its way, or answers why it does not.
func (s *session) next() error {
	s.untilWritten()
	for s.agent.answers.waiting.Load() > 0 { // nor does it ask the agent for more
		if err := s.wait(5 * time.Millisecond); err != nil {
			return err
		}
	}
	if err := s.wait(time.Duration(s.owed.Swap(0))); err != nil {
		return err
	}
	if err := s.readHeader(); err != nil {
		return err
	}
	length := int(binary.BigEndian.Uint32(s.header[:4]))
	id := binary.BigEndian.Uint32(s.header[4:8])
	switch {
	case s.header[8] != typeRequest:
		return fmt.Errorf("frame type %d: %w", s.header[8], ErrFrame)
	case id%2 != 1 || id <= s.lastID:
		return fmt.Errorf("stream id %d after %d: %w", id, s.lastID, ErrFrame)
	case length > maxDiscard:
		return fmt.Errorf("frame of %d bytes: %w", length, ErrFrame)
	}
	s.lastID = id
	t, refusal := s.admit(length)
	if refusal != nil {
		return s.refuse(id, length, refusal)
	}
	message := s.gate.buffers.get(length)
	if err := s.within(length, func() error {
		_, err := io.ReadFull(s.in, message)
		return err
	}); err != nil {
		t.release()
		return err
	}
	return s.dispatch(id, message, t)
}

// slowDown makes the connection pay for a refused request.
func (s *session) slowDown(length int, weight int64) {
	if !s.refused.Allow() {
		s.owed.Add(int64(refusedFactor * timeOf(length, weight)))
	}
}

// wait lets d pass, if it is any time, unless the connection ends.
func (s *session) wait(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-s.ctx.Done():
		return net.ErrClosed
	}
}

// readHeader waits for a frame without limit, and then for the rest of its header until the frame's deadline.
func (s *session) readHeader() error {
	if _, err := s.in.Peek(1); err != nil {
		return err
	}
	if s.gate.isDraining() {
		<-s.ctx.Done()
		return net.ErrClosed
	}
	return s.within(headerLen, func() error {
		_, err := io.ReadFull(s.in, s.header[:])
		return err
	})
}

// within reads n bytes by means of read, until the frame's deadline if they are not here already.
func (s *session) within(n int, read func() error) error {
	waits := s.in.Buffered() < n
	if waits {
		if err := s.conn.SetReadDeadline(time.Now().Add(s.gate.limits.FrameTimeout)); err != nil {
			return fmt.Errorf("set frame deadline: %w", err)
		}
	}
	if err := read(); err != nil {
		if errors.Is(err, io.EOF) { // it must not look like a connection that was closed between two frames
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read frame: %w", err)
	}
	if waits {
		return s.conn.SetReadDeadline(time.Time{})
	}
	return nil
}

// admit reserves room for a message of length bytes, waiting for it for a while.
func (s *session) admit(length int) (*ticket, error) {
	if length > maxMessage {
		return nil, errTooLarge
	}
	request, ok := s.requests.tryTake(1)
	if !ok {
		return nil, errTooMany
	}
	t := s.gate.tickets.issue(request)
	if t.bytes, ok = s.bytes.takeWithin(s.ctx, int64(length), s.gate.limits.ByteWait); !ok {
		t.release()
		return nil, errTooMuchData
	}
	return t, nil
}

// refuse answers a request that there is no room for, and passes over its message.
func (s *session) refuse(id uint32, length int, reason error) error {
	if err := s.within(length, func() error {
		_, err := s.in.Discard(length)
		return err
	}); err != nil {
		return err
	}
	s.slowDown(length, 0)
	s.answer(id, nil, status.Error(codes.ResourceExhausted, reason.Error()))
	return nil
}

// dispatch decodes a request here, one at a time for each connection, and has it judged and forwarded beside the others.
func (s *session) dispatch(id uint32, message []byte, t *ticket) error {
	e, err := parseEnvelope(message)
	if err != nil {
		t.release()
		return err
	}
	c := &call{session: s, id: id, ticket: t, message: message, payload: e.payload}
	var ok bool
	if c.method, ok = agentproto.Lookup(e.service, e.method); !ok {
		c.end(nil, status.Errorf(codes.Unimplemented, "the agent has no such method"))
		return nil
	}
	if mayBlock[c.method.Name] {
		t.markBlocking()
	}
	if len(c.payload) <= maxCached {
		c.key = sha256.Sum256(c.payload)
	}
	if c.repeats() {
		c.run(e.timeout)
		return nil
	}
	if err := c.decode(); err != nil {
		c.end(nil, err)
		return nil
	}
	if c.atOnce() {
		c.run(e.timeout)
		return nil
	}
	go c.run(e.timeout)
	return nil
}

// answer writes an encoded Response made of a message or an error.
func (s *session) answer(id uint32, answer proto.Message, err error) {
	buf := s.gate.buffers.get(1 << minBufferBits)[:headerLen]
	frame, failed := appendAnswer(buf, answer, err)
	if failed != nil || len(frame) > headerLen+maxMessage {
		frame, _ = appendAnswer(buf, nil, status.Error(codes.Internal, "the answer cannot be encoded"))
	}
	s.write(id, frame)
	s.gate.buffers.put(frame)
}

// write sends a Response of which frame has all but the header. A client that does not take it within a while is closed.
func (s *session) write(id uint32, frame []byte) {
	if !s.startAnswer() {
		return
	}
	defer s.writing.Unlock()
	putHeader(frame, len(frame)-headerLen, id, typeResponse)
	if _, err := s.conn.Write(frame); err != nil { // half an answer may be out
		s.close()
	}
}

// writeFrom sends a frame with a Response of length bytes as it comes from in, out of in's own memory. It returns in's error.
func (s *session) writeFrom(in *bufio.Reader, id uint32, length int) error {
	writes := s.startAnswer()
	if writes {
		defer s.writing.Unlock()
	}
	for left := headerLen + length; left > 0; {
		if _, err := in.Peek(1); err != nil {
			return err
		}
		chunk, _ := in.Peek(min(left, in.Buffered()))
		if left == headerLen+length { // the header is there, see stream
			putHeader(chunk, length, id, typeResponse)
		}
		left -= len(chunk)
		if writes {
			if _, err := s.conn.Write(chunk); err != nil {
				s.close()
				writes = false
			}
		}
		_, _ = in.Discard(len(chunk))
	}
	return nil
}

// startAnswer waits until an answer may be written, for which there is a while then. It is false when the connection has ended.
func (s *session) startAnswer() bool {
	s.writing.Lock()
	if s.ctx.Err() == nil {
		err := s.conn.SetWriteDeadline(time.Now().Add(s.gate.limits.AnswerWait))
		if err == nil {
			return true
		}
		s.close()
	}
	s.writing.Unlock()
	return false
}
