// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// ErrNotServing says that the agent has no state, because it was not started or was killed.
var ErrNotServing = errors.New("agent is not serving")

// Stream names an output of a process.
type Stream int

// The outputs of a process.
const (
	Stdout Stream = iota
	Stderr
)

// Containers returns the ids of the containers there are, sorted.
func (a *Agent) Containers() []string {
	s, err := a.sandbox()
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.containers))
}

// Feed puts data into an output of a process, as if its program had written it.
// An empty execID is the first process. It blocks while the pipe is full.
func (a *Agent) Feed(ctx context.Context, containerID, execID string, stream Stream, data []byte) error {
	p, err := a.process(containerID, execID)
	if err != nil {
		return fmt.Errorf("feed process: %w", err)
	}
	out := p.stdout
	if stream == Stderr {
		out = p.stderr
	}
	if _, err := out.write(ctx, data); err != nil {
		return fmt.Errorf("feed process: %w", err)
	}
	return nil
}

// Exit ends a process with that code, as if its program had ended.
func (a *Agent) Exit(containerID, execID string, code int32) error {
	p, err := a.process(containerID, execID)
	if err != nil {
		return fmt.Errorf("end process: %w", err)
	}
	p.exit(code)
	return nil
}

// OOM queues an event for GetOOMEvent. More than 16 that nobody fetches are lost.
func (a *Agent) OOM(containerID string) error {
	s, err := a.sandbox()
	if err != nil {
		return fmt.Errorf("queue OOM event: %w", err)
	}
	select {
	case s.oom <- containerID:
	default:
	}
	return nil
}

func (a *Agent) sandbox() (*sandbox, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.life == nil {
		return nil, ErrNotServing
	}
	return a.life.sandbox, nil
}

func (a *Agent) process(containerID, execID string) (*process, error) {
	s, err := a.sandbox()
	if err != nil {
		return nil, err
	}
	return s.process(containerID, execID)
}
