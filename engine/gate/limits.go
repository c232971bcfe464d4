// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"portcullis/agentproto"
)

// Limits bounds what clients can make the gate hold. All are for the gate as a whole, over all its connections; each connection
// has a part of them for itself, so that none is kept out by the others.
type Limits struct {
	Connections  int           // accepted connections
	Requests     int           // requests between their arrival and the moment their answer has left
	Bytes        int64         // of frames, from their header until they are with the agent or denied
	Decoded      int64         // that requests take once decoded, until they are judged
	Answers      int64         // of the agent's answers that have not left
	FrameTimeout time.Duration // for the rest of a frame, once it has begun
	ByteWait     time.Duration // how long a request waits for its share before it is refused
	AnswerWait   time.Duration // how long a client may take to read an answer before it is closed
}

// DefaultLimits are the limits of a guest: 16 connections, 4,096 requests, and 15 MiB of what they are and become in the worst case,
// beside 2 KiB for each that waits for the agent.
func DefaultLimits() Limits {
	return Limits{
		Connections: 16, Requests: 4096, Bytes: 11 << 19, Decoded: 4 << 20, Answers: 11 << 19,
		FrameTimeout: 10 * time.Second, ByteWait: 2 * time.Second, AnswerWait: 10 * time.Second,
	}
}

// reserved is how much of the requests, and of the bytes of each kind, one connection has for itself: a quarter of all,
// divided.
func (l Limits) reserved(all int64) int64 { return all / 4 / int64(max(l.Connections, 1)) }

// evaluations is how many requests of one connection are judged at a time: the others' come in between.
const evaluations = 2

// A connection may have refused requests as fast as a runtime in trouble repeats them; for more of them it waits refusedFactor times
// as long as they take, so that all connections together leave time for what is allowed.
const (
	refusedBurst  = 64
	refusedRate   = 20 // a second
	refusedFactor = 16
)

// timeOf estimates what a refused request of so many bytes and such a weight took.
func timeOf(length int, weight int64) time.Duration {
	return 100*time.Microsecond + time.Duration(length) + 10*time.Duration(min(weight, agentproto.MaxWeight))
}

// Reasons for a refusal, as the client reads them.
var (
	errTooLarge    = errors.New("request is larger than 4 MiB")
	errTooMany     = errors.New("too many requests in flight")
	errTooMuchData = errors.New("too many bytes in flight")
	errTooHeavy    = errors.New("request has too many parts")
)

// budget is something that clients use up together: what is not reserved goes to who comes first.
type budget struct {
	common   *semaphore.Weighted
	size     int64 // of common
	reserved int64 // of each client
}

func newBudget(l Limits, all int64) *budget {
	own := l.reserved(all)
	rest := all - own*int64(l.Connections)
	return &budget{common: semaphore.NewWeighted(rest), size: rest, reserved: own}
}

// share is one client's part of a budget.
type share struct {
	of      *budget
	own     *semaphore.Weighted
	waiting atomic.Int32 // how many wait in take
}

func (b *budget) share() *share { return &share{of: b, own: semaphore.NewWeighted(b.reserved)} }

// grant is what was taken from a share. The zero grant is nothing.
type grant struct {
	from *semaphore.Weighted
	n    int64
}

// release gives the grant back; safe to call more than once.
func (g *grant) release() {
	if g.from != nil {
		g.from.Release(g.n)
		g.from = nil
	}
}

// tryTake takes n without waiting.
func (s *share) tryTake(n int64) (grant, bool) {
	switch {
	case n <= s.of.reserved && s.own.TryAcquire(n):
		return grant{s.own, n}, true
	case s.of.common.TryAcquire(n):
		return grant{s.of.common, n}, true
	}
	return grant{}, false
}

// take takes n, waiting for it until ctx ends. What fits into the client's own part waits for that alone: others cannot keep it.
func (s *share) take(ctx context.Context, n int64) (grant, bool) {
	if g, ok := s.tryTake(n); ok {
		return g, true
	}
	from := s.own
	if n > s.of.reserved {
		from = s.of.common
	}
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	if n > s.of.size && n > s.of.reserved || from.Acquire(ctx, n) != nil {
		return grant{}, false
	}
	return grant{from, n}, true
}

// takeWithin is take for at most wait; it needs no timer when there is room.
func (s *share) takeWithin(ctx context.Context, n int64, wait time.Duration) (grant, bool) {
	if g, ok := s.tryTake(n); ok {
		return g, true
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return s.take(ctx, n)
}

// tickets counts the requests in flight over all connections.
type tickets struct {
	mu       sync.Mutex
	open     int
	blocking int // how many of open may last as long as a container runs
}

// ticket is one request's part of the limits, from its frame's header until its answer has left.
type ticket struct {
	owner   *tickets
	request grant // one of Limits.Requests
	bytes   grant // of the frame
	decoded grant // of the message
	blocks  bool
	done    bool
}

// issue makes a ticket for a granted request.
func (ts *tickets) issue(request grant) *ticket {
	ts.mu.Lock()
	ts.open++
	ts.mu.Unlock()
	return &ticket{owner: ts, request: request}
}

// markBlocking notes that t's request may last as long as a container runs.
func (t *ticket) markBlocking() {
	t.owner.mu.Lock()
	defer t.owner.mu.Unlock()
	if !t.blocks && !t.done {
		t.blocks = true
		t.owner.blocking++
	}
}

// release gives all of t's parts back; safe to call more than once.
func (t *ticket) release() {
	t.decoded.release()
	t.bytes.release()
	t.request.release()
	t.owner.mu.Lock()
	defer t.owner.mu.Unlock()
	if t.done {
		return
	}
	t.done = true
	t.owner.open--
	if t.blocks {
		t.owner.blocking--
	}
}

// busy returns the number of requests in flight that end by themselves.
func (ts *tickets) busy() int {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.open - ts.blocking
}
