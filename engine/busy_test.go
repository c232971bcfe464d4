// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"testing"
	"time"
)

// While a text is compiled, another waits, and gives up with its context.
func TestOneCompilationAtATime(t *testing.T) {
	c, err := NewCompiler(CompilerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.busy <- struct{}{} // as a compilation under way
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	text := []byte("package agent_policy\nX = true")
	if _, err := c.Compile(ctx, text); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("beside another one: %v, want %v", err, context.DeadlineExceeded)
	}
	<-c.busy
	if _, err := c.Compile(t.Context(), text); err != nil {
		t.Errorf("after it: %v", err)
	}
}
