// SPDX-License-Identifier: Apache-2.0

// Package wait bounds waiting by a context: for another goroutine, or for the kernel and the host, which may be endless: a
// security processor that throttles, a disk that never answers. What it returns when the context ends first is the cause.
package wait

import "context"

// For waits until ready is closed or sends.
func For(ctx context.Context, ready <-chan struct{}) error {
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Acquire takes one of the places of slots, a channel with room for as many as may hold one at a time. The holder gives it
// back by receiving from slots.
func Acquire(ctx context.Context, slots chan<- struct{}) error {
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Result runs f in its own goroutine and returns its result, or ctx's error if that comes first. A call that hangs in the
// kernel cannot be ended, so f may outlive Result; it must write to nothing that the caller still reads.
func Result[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var zero T
	if ctx.Err() != nil {
		return zero, context.Cause(ctx)
	}
	done := make(chan result, 1)
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return zero, context.Cause(ctx)
	}
}
