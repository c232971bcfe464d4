// SPDX-License-Identifier: Apache-2.0

// Package gate stands in front of the kata-agent: it takes the host's ttrpc connections, has each request judged by the
// policy, and passes on what is allowed.
//
// One path serves all methods; the table of methods comes from the protobuf descriptors. A request is decoded, refused if it
// holds a field the API does not have, checked against what no policy may allow (see [Protected]), judged, and forwarded
// re-encoded from what was judged, never as the bytes that came. The agent's answers, codes and details pass unchanged.
//
// What the host can do to the gate itself is bounded: see [Limits].
package gate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"portcullis/engine"
	"portcullis/engine/trace"
)

// Policies decides requests and takes new policies. engine/binding implements it.
type Policies interface {
	// Admit decides one request. Its verdict counts for the policy that rules at that moment.
	Admit(ctx context.Context, r engine.Request) (*engine.Verdict, error)
	// Recall returns what Admit would return now if that takes no evaluation of a policy, else nil.
	Recall(r engine.Request) *engine.Verdict
	// Stands reports whether a verdict of Admit still counts, right before its request is sent.
	Stands(v *engine.Verdict) bool
	// Observe gives the active policy the agent's answer to a request it allowed.
	Observe(ctx context.Context, r engine.Request) (*engine.Verdict, error)
	// Started reports whether anything may run in the guest: before that nothing but health reaches the agent.
	Started() bool
	// TakeID makes a container id count as used for the rest of the boot. After an error the container must not be created.
	TakeID(id string) error
	// SetPolicy makes text the active policy. An error with a gRPC status is passed on as it is.
	SetPolicy(ctx context.Context, text []byte) error
}

// Config is what a gate is made of. Policies and Agent are required.
type Config struct {
	Policies   Policies
	Agent      Dialer
	Limits     Limits   // zero: DefaultLimits
	VsockPeers []uint32 // context ids that may connect over vsock
	Protected  []string // further paths no request may name, see Protected
	Allow      []string // what is left to the policy though it is refused otherwise, see CheckAllow
	Log        *slog.Logger
	Trace      *trace.Log // nil: no decision log
	Record     Record     // nil: the pod's life is not recorded
}

// Gate serves the agent's API. Make it with New, give it listeners with Serve, end it with Shutdown.
type Gate struct {
	policies  Policies
	agent     Dialer
	peers     []uint32
	protected *protected
	log       *slog.Logger
	trace     *trace.Log
	record    Record
	counts    counts

	logLimit *rate.Limiter // what a host can cause to be logged; the decision log has it all
	limits   Limits
	tickets  tickets
	requests *budget
	bytes    *budget // of frames
	decoded  *budget // that requests take once decoded
	answers  *budget // bytes of the agent's answers
	buffers  *buffers
	stateful agentConn // for requests that change the policy's state, and files; never closed with a client
	repeats  repeats   // requests known byte by byte
	copying  turn      // one CopyFile at a time is with the agent

	draining chan struct{} // closed by Shutdown
	drain    sync.Once

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	sessions  map[*session]struct{}
}

// New makes a gate that serves nobody yet.
func New(c Config) *Gate {
	if c.Limits == (Limits{}) {
		c.Limits = DefaultLimits()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gate{
		policies:  c.Policies,
		agent:     c.Agent,
		peers:     c.VsockPeers,
		protected: newProtected(c.Protected, c.Allow),
		log:       c.Log,
		trace:     c.Trace,
		record:    c.Record,
		counts:    newCounts(),
		logLimit:  rate.NewLimiter(10, 100),
		limits:    c.Limits,
		requests:  newBudget(c.Limits, int64(c.Limits.Requests)),
		bytes:     newBudget(c.Limits, c.Limits.Bytes),
		decoded:   newBudget(c.Limits, c.Limits.Decoded),
		answers:   newBudget(c.Limits, c.Limits.Answers),
		repeats:   newRepeats(),
		copying:   newTurn(),
		buffers:   newBuffers(),
		draining:  make(chan struct{}),
		listeners: map[net.Listener]struct{}{},
		sessions:  map[*session]struct{}{},
	}
	g.stateful = agentConn{dial: c.Agent, buffers: g.buffers}
	return g
}

// Serve accepts connections from l until Shutdown, then returns nil. It closes l.
func (g *Gate) Serve(ctx context.Context, l net.Listener) error {
	g.mu.Lock()
	g.listeners[l] = struct{}{}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.listeners, l)
		g.mu.Unlock()
		l.Close()
	}()
	if g.isDraining() { // Shutdown may have passed over the listeners already
		return nil
	}
	for {
		conn, err := l.Accept()
		switch {
		case g.isDraining():
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		case err != nil: // such as a lack of descriptors: it passes
			g.log.Error("accept failed", "listener", l.Addr().String(), "error", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-g.draining:
			}
			continue
		}
		g.admit(ctx, conn)
	}
}

// admit serves a connection if its peer is allowed and there is room for it. The peer is checked first: who may not
// connect takes no room either.
func (g *Gate) admit(ctx context.Context, conn net.Conn) {
	if !peerAllowed(conn, g.peers) {
		if g.logLimit.Allow() {
			g.log.Warn("connection refused: peer is not in vsock_peers", "peer", peerName(conn))
		}
		conn.Close()
		return
	}
	s := g.join(ctx, conn)
	if s == nil {
		if g.logLimit.Allow() {
			g.log.Warn("connection refused: too many connections", "peer", peerName(conn), "limit", g.limits.Connections)
		}
		conn.Close()
		return
	}
	go s.run()
}

// join makes a session of a connection, nil when there is no room for it: a host that connects over and over costs nothing more.
func (g *Gate) join(ctx context.Context, conn net.Conn) *session {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.sessions) >= g.limits.Connections {
		return nil
	}
	s := newSession(ctx, g, conn)
	g.sessions[s] = struct{}{}
	return s
}

// Shutdown stops accepting and reading, waits until the requests in flight are answered (but for those that may last as
// long as a container, such as WaitProcess) or ctx ends, and closes all connections. It returns ctx's error if requests
// were cut off.
func (g *Gate) Shutdown(ctx context.Context) error {
	g.drain.Do(func() { close(g.draining) })
	g.mu.Lock()
	for l := range g.listeners {
		l.Close()
	}
	g.mu.Unlock()

	err := g.waitIdle(ctx)
	g.mu.Lock()
	sessions := make([]*session, 0, len(g.sessions))
	for s := range g.sessions {
		sessions = append(sessions, s)
	}
	g.mu.Unlock()
	for _, s := range sessions {
		s.close()
	}
	g.stateful.close()
	return err
}

func (g *Gate) waitIdle(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for g.tickets.busy() > 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("shut down: %d requests cut off: %w", g.tickets.busy(), ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

func (g *Gate) isDraining() bool {
	select {
	case <-g.draining:
		return true
	default:
		return false
	}
}
