// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// maxRecorded bounds the encoded size of the requests that are kept, in bytes.
const maxRecorded = 16 << 20

// Request is a call that reached the agent.
type Request struct {
	Service string        // such as "grpc.AgentService"
	Method  string        // such as "CreateContainer"
	Message proto.Message // must not be modified
}

// hooks is what a test sees of the calls and does to them.
type hooks struct {
	maxRequests int

	mu       sync.Mutex
	failures map[string][]*status.Status
	before   map[string]chan struct{} // closed to release
	after    map[string]chan struct{}
	calls    map[string]int
	requests []Request
	sizes    []int // of requests, encoded
	recorded int   // sum of sizes
	changed  chan struct{}
}

func newHooks(maxRequests int) *hooks {
	return &hooks{
		maxRequests: maxRequests,
		failures:    make(map[string][]*status.Status),
		before:      make(map[string]chan struct{}),
		after:       make(map[string]chan struct{}),
		calls:       make(map[string]int),
		changed:     make(chan struct{}),
	}
}

// Fail makes the next call of method fail with st, which must not be OK, before
// it has any effect. Several calls of Fail queue up.
func (a *Agent) Fail(method string, st *status.Status) {
	a.hooks.mu.Lock()
	defer a.hooks.mu.Unlock()
	a.hooks.failures[method] = append(a.hooks.failures[method], st)
}

// Block makes calls of method wait before they have any effect, until release is called or their connection ends.
func (a *Agent) Block(method string) (release func()) {
	return a.hooks.hold(a.hooks.before, method)
}

// BlockReply makes calls of method wait when they have had their effect, until release is called or their connection ends.
func (a *Agent) BlockReply(method string) (release func()) {
	return a.hooks.hold(a.hooks.after, method)
}

// Requests returns the latest requests, in the order of arrival. Calls that were made to fail or to wait are among them.
func (a *Agent) Requests() []Request {
	a.hooks.mu.Lock()
	defer a.hooks.mu.Unlock()
	return slices.Clone(a.hooks.requests)
}

// Calls returns how often method was called.
func (a *Agent) Calls(method string) int {
	a.hooks.mu.Lock()
	defer a.hooks.mu.Unlock()
	return a.hooks.calls[method]
}

// Await returns when method was called n times since [New], or with ctx's error.
func (a *Agent) Await(ctx context.Context, method string, n int) error {
	for {
		a.hooks.mu.Lock()
		calls, changed := a.hooks.calls[method], a.hooks.changed
		a.hooks.mu.Unlock()
		if calls >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// hold puts a gate for method into gates; a gate that is there is shared.
func (h *hooks) hold(gates map[string]chan struct{}, method string) (release func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	gate, ok := gates[method]
	if !ok {
		gate = make(chan struct{})
		gates[method] = gate
	}
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if gates[method] == gate {
			delete(gates, method)
			close(gate)
		}
	}
}

// enter records a call and does what was asked for it.
func (h *hooks) enter(ctx context.Context, request Request) error {
	h.mu.Lock()
	h.record(request)
	gate := h.before[request.Method]
	var failure *status.Status
	if queue := h.failures[request.Method]; len(queue) > 0 {
		failure, h.failures[request.Method] = queue[0], queue[1:]
	}
	h.mu.Unlock()
	if err := wait(ctx, gate); err != nil {
		return err
	}
	return failure.Err()
}

// leave holds the reply of a call back.
func (h *hooks) leave(ctx context.Context, method string) error {
	h.mu.Lock()
	gate := h.after[method]
	h.mu.Unlock()
	return wait(ctx, gate)
}

func wait(ctx context.Context, gate <-chan struct{}) error {
	if gate == nil {
		return nil
	}
	select {
	case <-gate:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *hooks) record(request Request) {
	h.calls[request.Method]++
	close(h.changed)
	h.changed = make(chan struct{})
	size := proto.Size(request.Message)
	h.requests = append(h.requests, request)
	h.sizes = append(h.sizes, size)
	h.recorded += size
	drop := 0
	for len(h.requests)-drop > h.maxRequests || h.recorded > maxRecorded {
		h.recorded -= h.sizes[drop]
		h.requests[drop].Message = nil
		drop++
	}
	h.requests, h.sizes = h.requests[drop:], h.sizes[drop:]
}
