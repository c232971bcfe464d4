package gate

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sync/semaphore"
)

// Limits bounds what clients can make the gate hold. All are for the gate as a whole, over all its connections.
type Limits struct {
	Connections  int           // accepted connections
	Requests     int           // requests between their arrival and their answer
	Bytes        int64         // bytes held for those requests
	FrameTimeout time.Duration // for the rest of a frame, once it has begun
	ByteWait     time.Duration // how long a request waits for its share of Bytes before it is refused
}

// DefaultLimits are the limits of a guest: 16 connections, 4,096 requests, 32 MiB.
func DefaultLimits() Limits {
	return Limits{Connections: 16, Requests: 4096, Bytes: 32 << 20, FrameTimeout: 10 * time.Second, ByteWait: 2 * time.Second}
}

// copies is how often a request's bytes exist at once at the worst: as frame, as envelope, as message and re-encoded.
const copies = 4

// largeFrame bytes and more count as large: such frames may use only three quarters of Limits.Bytes, so that they never
// hold up the small ones (a signal, an exit).
const largeFrame = 64 << 10

// Reasons for a refusal by the filter, as the client reads them.
var (
	errTooLarge    = errors.New("request is larger than 4 MiB")
	errTooMany     = errors.New("too many requests in flight")
	errTooMuchData = errors.New("too many bytes in flight")
)

// tickets accounts for the requests in flight over all connections.
type tickets struct {
	limits Limits
	bytes  *semaphore.Weighted
	large  *semaphore.Weighted // the part of bytes that large frames may use

	mu       sync.Mutex
	last     uint64
	open     map[uint64]*ticket
	blocking int // how many of open may last as long as a container runs
}

// ticket is one request's share of the limits, from its frame's header until it is answered.
type ticket struct {
	owner  *tickets
	number uint64
	size   int // of the frame's message

	blocks, done bool // guarded by owner.mu
}

func newTickets(l Limits) *tickets {
	return &tickets{
		limits: l,
		bytes:  semaphore.NewWeighted(l.Bytes),
		large:  semaphore.NewWeighted(l.Bytes / 4 * 3),
		open:   map[uint64]*ticket{},
	}
}

// take reserves room for a message of size bytes, waiting for it up to ByteWait or until ctx ends.
func (ts *tickets) take(ctx context.Context, size int) (*ticket, error) {
	if size+ticketSuffix > maxMessage {
		return nil, errTooLarge
	}
	t := &ticket{owner: ts, size: size}
	ts.mu.Lock()
	if len(ts.open) >= ts.limits.Requests {
		ts.mu.Unlock()
		return nil, errTooMany
	}
	ts.last++
	t.number = ts.last
	ts.open[t.number] = t
	ts.mu.Unlock()

	if !t.reserve(ctx) {
		ts.forget(t)
		return nil, errTooMuchData
	}
	return t, nil
}

func (t *ticket) cost() int64 { return int64(t.size) * copies }

// reserve takes t's bytes, large ones from their own part first.
func (t *ticket) reserve(ctx context.Context) bool {
	ts := t.owner
	if t.size < largeFrame {
		return acquire(ctx, ts.bytes, t.cost(), ts.limits.ByteWait)
	}
	if !acquire(ctx, ts.large, t.cost(), ts.limits.ByteWait) {
		return false
	}
	if !acquire(ctx, ts.bytes, t.cost(), ts.limits.ByteWait) {
		ts.large.Release(t.cost())
		return false
	}
	return true
}

// acquire waits for n of s up to wait; it needs no timer when n is there.
func acquire(ctx context.Context, s *semaphore.Weighted, n int64, wait time.Duration) bool {
	if s.TryAcquire(n) {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return s.Acquire(ctx, n) == nil
}

// release gives t's share back; safe to call more than once.
func (t *ticket) release() {
	ts := t.owner
	if !ts.forget(t) {
		return
	}
	ts.bytes.Release(t.cost())
	if t.size >= largeFrame {
		ts.large.Release(t.cost())
	}
}

// forget takes t off the list and reports whether it was on it.
func (ts *tickets) forget(t *ticket) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if t.done {
		return false
	}
	t.done = true
	delete(ts.open, t.number)
	if t.blocks {
		ts.blocking--
	}
	return true
}

// markBlocking notes that t's request may last as long as a container runs.
func (t *ticket) markBlocking() {
	ts := t.owner
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if !t.blocks && !t.done {
		t.blocks = true
		ts.blocking++
	}
}

// busy returns the number of requests in flight that end by themselves.
func (ts *tickets) busy() int {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return len(ts.open) - ts.blocking
}

// find returns the ticket whose number the filter attached to a request.
func (ts *tickets) find(ctx context.Context) (*ticket, bool) {
	number, err := strconv.ParseUint(attachment(ctx), 16, 64)
	if err != nil {
		return nil, false
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t, ok := ts.open[number]
	return t, ok
}

// attachment returns what the filter attached to a request: the last value under its key, whatever the client sent.
func attachment(ctx context.Context) string {
	md, _ := ttrpc.GetMetadata(ctx)
	values := md[ticketKey]
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}
