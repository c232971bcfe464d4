// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"
	"syscall"

	"portcullis/agentproto/agentpb"
)

// Process is what a [Program] sees of itself.
type Process struct {
	Args   []string
	Env    []string
	Stdin  io.Reader
	Stdout io.Writer // blocks while nobody reads
	Stderr io.Writer // Stdout when there is a terminal
}

// Program is an executable of the fake guest. It returns its exit code. When ctx
// ends it was killed, and what it returns is ignored.
type Program func(ctx context.Context, p Process) int32

// Cat copies its input to its output.
func Cat(_ context.Context, p Process) int32 {
	if _, err := io.Copy(p.Stdout, p.Stdin); err != nil {
		return 1
	}
	return 0
}

// Echo prints its arguments.
func Echo(_ context.Context, p Process) int32 {
	if _, err := fmt.Fprintln(p.Stdout, strings.Join(p.Args[1:], " ")); err != nil {
		return 1
	}
	return 0
}

// Discard reads its input to the end.
func Discard(_ context.Context, p Process) int32 {
	if _, err := io.Copy(io.Discard, p.Stdin); err != nil {
		return 1
	}
	return 0
}

// Pause waits to be killed.
func Pause(ctx context.Context, _ Process) int32 {
	<-ctx.Done()
	return 0
}

// Exit returns a program that ends at once with that code.
func Exit(code int32) Program {
	return func(context.Context, Process) int32 { return code }
}

// program finds the program of a process. An executable without one waits to be
// killed as the first process of a container, and ends with 0 as an exec.
func (s *sandbox) program(args []string, first bool) Program {
	var name string
	if len(args) > 0 {
		name = path.Base(args[0])
	}
	if program, ok := s.options.Programs[name]; ok {
		return program
	}
	switch name {
	case "cat":
		return Cat
	case "echo":
		return Echo
	case "pause", "sleep":
		return Pause
	case "false":
		return Exit(1)
	case "true":
		return Exit(0)
	}
	if first {
		return Pause
	}
	return Exit(0)
}

// process is one process of a container.
type process struct {
	spec   *agentpb.Process
	first  bool
	stdin  *pipe
	stdout *pipe
	stderr *pipe
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{} // closed when code is set
	once   sync.Once
	code   int32
}

func (s *sandbox) newProcess(spec *agentpb.Process, first bool) *process {
	ctx, cancel := context.WithCancel(s.ctx)
	p := &process{
		spec: spec, first: first, ctx: ctx, cancel: cancel, done: make(chan struct{}),
		stdin: newPipe(), stdout: newPipe(), stderr: newPipe(),
	}
	if spec.GetTerminal() {
		p.stderr = p.stdout
	}
	return p
}

// start runs the program of p. The lock is held.
func (s *sandbox) start(p *process) {
	if s.stopped {
		p.exit(killed)
		return
	}
	program := s.program(p.spec.GetArgs(), p.first)
	view := Process{
		Args: p.spec.GetArgs(), Env: p.spec.GetEnv(),
		Stdin: end{p.ctx, p.stdin}, Stdout: end{p.ctx, p.stdout}, Stderr: end{p.ctx, p.stderr},
	}
	s.programs.Go(func() {
		code := program(p.ctx, view)
		if p.ctx.Err() != nil { // the agent ended
			code = killed
		}
		p.exit(code)
	})
}

// exit ends p with that code, once. Output that is not read yet stays.
func (p *process) exit(code int32) {
	p.once.Do(func() {
		p.code = code
		p.cancel()
		p.stdin.close()
		p.stdout.close()
		p.stderr.close()
		close(p.done)
	})
}

// signal does what the default action of a signal does.
func (p *process) signal(number syscall.Signal) {
	switch number {
	case 0, syscall.SIGCHLD, syscall.SIGCONT, syscall.SIGURG, syscall.SIGWINCH:
	default:
		p.exit(128 + int32(number))
	}
}
