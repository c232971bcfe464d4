// Package wait keeps a wait for the kernel or the host from becoming
// endless: a security processor that throttles, a disk that never answers.
package wait

import "context"

// Result runs f in its own goroutine and returns its result, or ctx's error if that
// comes first. A call that hangs in the kernel cannot be ended, so f may outlive
// Result; it must write to nothing that the caller still reads.
func Result[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var zero T
	if err := ctx.Err(); err != nil {
		return zero, err
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
		return zero, ctx.Err()
	}
}
