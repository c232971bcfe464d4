package gate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto"
)

// Errors of a call to the agent that the agent did not answer.
var (
	// ErrAgentAbsent: the agent could not be reached; the request was not sent.
	ErrAgentAbsent = errors.New("agent is not there")
	// ErrAgentLost: the connection ended before the answer; whether the agent acted on the request is unknown.
	ErrAgentLost = errors.New("agent connection lost")
)

// dialTimeout bounds one attempt to reach the agent, which is on a local socket.
const dialTimeout = 5 * time.Second

// Dialer connects to the agent.
type Dialer func(ctx context.Context) (net.Conn, error)

// agentConn is a connection to the agent, made when first used and made again after it was lost. The agent cancels the
// requests of a connection that is closed, which is how a client's disconnect reaches it: ttrpc has no cancel.
type agentConn struct {
	dial      Dialer
	encodings sync.Pool // *opaque of up to keepFrameBuffer bytes, for requests on their way

	mu     sync.Mutex
	client *ttrpc.Client
	closed bool
}

// call sends req to the agent and waits for the answer in resp. An error with a gRPC status is the agent's answer;
// ErrAgentAbsent, ErrAgentLost and ctx's errors are not.
func (a *agentConn) call(ctx context.Context, m agentproto.Method, req, resp proto.Message) error {
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	encoded, done, err := a.encode(req)
	if err != nil {
		return err
	}
	defer done()
	err = client.Call(ttrpc.WithMetadata(ctx, nil), m.Service, m.Name, encoded, resp) // the client's metadata was not judged
	if err == nil || isAnswer(err) || ctx.Err() != nil {
		return err
	}
	a.drop(client)
	return fmt.Errorf("%w: %w", ErrAgentLost, err)
}

// encode returns the encoding of a judged request; done gives its memory back, when ttrpc has sent it.
func (a *agentConn) encode(req proto.Message) (encoded *opaque, done func(), err error) {
	encoded, _ = a.encodings.Get().(*opaque)
	if encoded == nil {
		encoded = new(opaque)
	}
	encoded.wire, err = proto.MarshalOptions{}.MarshalAppend(encoded.wire[:0], req)
	if err != nil {
		return nil, nil, status.Error(codes.InvalidArgument, "request cannot be encoded")
	}
	return encoded, func() {
		if cap(encoded.wire) <= keepFrameBuffer {
			a.encodings.Put(encoded)
		}
	}, nil
}

// connect returns the live connection, dialing if there is none.
func (a *agentConn) connect(ctx context.Context) (*ttrpc.Client, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, fmt.Errorf("%w: client has gone", ErrAgentAbsent)
	}
	if a.client != nil {
		return a.client, nil
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := a.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAgentAbsent, err)
	}
	widen(conn)
	var client *ttrpc.Client
	ready := make(chan struct{})
	client = ttrpc.NewClient(conn, ttrpc.WithOnClose(func() {
		<-ready // the callback may run before NewClient has returned
		a.drop(client)
	}))
	a.client = client
	close(ready)
	return client, nil
}

// drop forgets client, so that the next call dials.
func (a *agentConn) drop(client *ttrpc.Client) {
	a.mu.Lock()
	if a.client == client {
		a.client = nil
	}
	a.mu.Unlock()
	_ = client.Close() // ends a local connection; nothing is left to flush
}

// close ends the connection for good.
func (a *agentConn) close() {
	a.mu.Lock()
	client := a.client
	a.client, a.closed = nil, true
	a.mu.Unlock()
	if client != nil {
		_ = client.Close()
	}
}

// isAnswer reports whether err is a status that the agent sent.
func isAnswer(err error) bool {
	_, ok := status.FromError(err)
	return ok
}

// answer turns an error of call into what the client is told: the agent's own status unchanged, or one of ours.
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
