// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Why a request could not be decided. Callers treat each as a denial.
var (
	ErrDeadline   = errors.New("policy evaluation took too long")
	ErrEvaluation = errors.New("policy evaluation failed")
	ErrPanic      = errors.New("policy evaluation panicked")
	ErrClosed     = errors.New("policy engine is closed")
	ErrNoPolicy   = errors.New("no policy is active")
)

// workers are resident goroutines that evaluate: their stacks have grown already, and their number bounds how much is evaluated
// at a time.
type workers struct {
	jobs    chan func()
	closed  chan struct{}
	close   sync.Once
	timeout time.Duration
}

func startWorkers(n int, timeout time.Duration) *workers {
	w := &workers{jobs: make(chan func()), closed: make(chan struct{}), timeout: timeout}
	for range n {
		go w.work()
	}
	return w
}

func (w *workers) work() {
	for {
		select {
		case job := <-w.jobs:
			job()
		case <-w.closed:
			return
		}
	}
}

func (w *workers) stop() { w.close.Do(func() { close(w.closed) }) }

// run evaluates f on a worker, when turns, if there are any, has room for it. Waiting for a free one ends with ctx; from then on
// f has w.timeout. run returns at the deadline even when f is stuck in a builtin that cannot be cancelled; its turn ends with f.
func run[T any](ctx context.Context, w *workers, turns chan struct{}, f func(context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var zero T
	ready := make(chan context.Context, 1)
	done := make(chan result, 1)
	job := func() {
		var r result
		defer func() { done <- r }()
		defer endTurn(turns)
		defer recoverTo(&r.err, ErrPanic)
		r.value, r.err = f(<-ready)
	}
	if turns != nil {
		select {
		case turns <- struct{}{}:
		case <-ctx.Done():
			return zero, context.Cause(ctx)
		}
	}
	select {
	case w.jobs <- job:
	case <-ctx.Done():
		endTurn(turns)
		return zero, context.Cause(ctx)
	case <-w.closed:
		endTurn(turns)
		return zero, ErrClosed
	}
	ctx, cancel := context.WithTimeoutCause(ctx, w.timeout, ErrDeadline)
	defer cancel()
	ready <- ctx
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return zero, context.Cause(ctx)
	}
}

func endTurn(turns chan struct{}) {
	if turns != nil {
		<-turns
	}
}
