// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"portcullis/agentproto"
	"portcullis/engine"
)

// Errors of a call to the agent that the agent did not answer.
var (
	// ErrAgentAbsent: the agent could not be reached; the request was not sent.
	ErrAgentAbsent = errors.New("agent is not there")
	// ErrAgentLost: the connection ended before the answer; whether the agent acted on the request is unknown.
	ErrAgentLost = errors.New("agent connection lost")
)

// maxUnderWay is how many small requests fit into the smallest buffer of a socket, with much to spare.
const maxUnderWay = 64

// dialTimeout bounds one attempt to reach the agent, which is on a local socket.
const dialTimeout = 5 * time.Second

// Dialer connects to the agent.
type Dialer func(ctx context.Context) (net.Conn, error)

// agentConn is a connection to the agent, made when first used and made again after it was lost. The agent cancels the
// requests of a connection that is closed, which is how a client's disconnect reaches it: ttrpc has no cancel.
type agentConn struct {
	dial    Dialer
	buffers *buffers
	answers *share // of the bytes of answers; nil: not counted

	mu     sync.Mutex
	link   *agentLink
	closed bool
}

// judged is a request as it was judged, encoded in two parts: the second shares memory with the frame that it came in.
type judged struct {
	method     agentproto.Method
	head, tail []byte
	stands     func() bool // whether it may still be sent; nil: it was not for a policy to decide
}

// reply is the agent's answer as it came: a frame with room for another header. Whoever has it calls release.
type reply struct {
	frame   []byte // headerLen bytes, and the encoded Response
	payload []byte // of the Response, in frame
	bytes   grant
	buffers *buffers
}

// release gives the answer's memory back.
func (r *reply) release() {
	r.bytes.release()
	r.buffers.put(r.frame)
	r.frame, r.payload = nil, nil
}

// call sends a request to the agent and waits for the answer. sent is called once the request's memory is not used any more.
// An error with a gRPC status is the agent's answer; ErrAgentAbsent, ErrAgentLost and ctx's errors are not.
func (a *agentConn) call(ctx context.Context, j judged, sent func()) (*reply, error) {
	answers := make(chan outcome, 1)
	link, id, err := a.send(ctx, j, waiter{done: func(o outcome) { answers <- o }})
	sent()
	if err != nil {
		return nil, err
	}
	select {
	case o := <-answers:
		return o.reply, o.err
	case <-ctx.Done():
		if _, ours := link.take(id); !ours { // it has just come, and nobody waits for it any more
			(<-answers).release()
		}
		return nil, ctx.Err()
	}
}

// release gives the memory of an answer back, if there is one.
func (o outcome) release() {
	if o.reply != nil {
		o.reply.release()
	}
}

// parsed reads the answer. One that is an error of the agent's is released.
func (r *reply) parsed() (*reply, error) {
	payload, err := parseResponse(r.frame[headerLen:])
	if err == nil {
		r.payload = payload
		return r, nil
	}
	r.release()
	if errors.Is(err, ErrFrame) {
		err = fmt.Errorf("%w: %w", ErrAgentLost, err)
	}
	return nil, err
}

// send sends a request over a live connection. w is called with its outcome, unless send returns an error.
func (a *agentConn) send(ctx context.Context, j judged, w waiter) (*agentLink, uint32, error) {
	for {
		link, err := a.connect(ctx)
		if err != nil {
			return nil, 0, err
		}
		id, err := link.send(ctx, j, w)
		if !errors.Is(err, errOver) {
			return link, id, err
		}
		a.drop(link) // it ended before anything was sent
	}
}

// takesMore reports whether a small request can be sent without waiting for the agent: it is there, and few are under way.
func (a *agentConn) takesMore() bool {
	a.mu.Lock()
	link := a.link
	a.mu.Unlock()
	return link != nil && !link.isOver() && link.underWay() < maxUnderWay
}

// connect returns the live connection, dialing if there is none.
func (a *agentConn) connect(ctx context.Context) (*agentLink, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, fmt.Errorf("%w: client has gone", ErrAgentAbsent)
	}
	if a.link != nil && !a.link.isOver() {
		return a.link, nil
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := a.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAgentAbsent, err)
	}
	widen(conn)
	a.link = newAgentLink(quick(conn), a.buffers, a.answers)
	return a.link, nil
}

// drop forgets link, so that the next call dials.
func (a *agentConn) drop(link *agentLink) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.link == link {
		a.link = nil
	}
}

// close ends the connection for good.
func (a *agentConn) close() {
	a.mu.Lock()
	link := a.link
	a.link, a.closed = nil, true
	a.mu.Unlock()
	if link != nil {
		link.end(net.ErrClosed)
	}
}

// encode makes of the request as v allowed it what is sent, with buf's memory for its first part.
func (c *call) encode(v *engine.Verdict, buf []byte) (judged, error) {
	m := c.method
	head, tail, err := agentproto.EncodeShared(c.request, buf)
	if err != nil {
		return judged{}, status.Error(codes.InvalidArgument, "request cannot be encoded")
	}
	if len(head)+len(tail)+len(m.Service)+len(m.Name)+64 > maxMessage {
		return judged{}, status.Error(codes.ResourceExhausted, errTooLarge.Error()+" once it is re-encoded")
	}
	j := judged{method: m, head: head, tail: tail}
	if v != nil {
		j.stands = func() bool { return c.gate.policies.Stands(v) }
	}
	return j, nil
}

// isAnswer reports whether err is a status that the agent sent.
func isAnswer(err error) bool {
	_, ok := status.FromError(err)
	return ok
}

// answer turns an error of call into the status that the client gets: the agent's own status unchanged, or one of ours.
func answer(ctx context.Context, err error) error {
	switch {
	case err == nil || isAnswer(err):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "the request's deadline passed while the agent was at work")
	case ctx.Err() != nil:
		return status.Error(codes.Canceled, "the client has gone")
	case errors.Is(err, ErrAgentLost):
		return status.Error(codes.Unavailable, ErrAgentLost.Error()+"; it may or may not have carried the request out")
	default:
		return status.Error(codes.Unavailable, "kata-agent cannot be reached yet; is it running?")
	}
}
