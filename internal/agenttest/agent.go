// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/containerd/ttrpc"

	"portcullis/agentproto"
)

// Options are what differs between two agents. The zero value serves.
type Options struct {
	// SharedDir stands for /run/kata-containers: CreateSandbox removes it with
	// all that is in it and makes it again. Empty: nothing is removed.
	SharedDir string
	// Version is the agent's version; empty is "4.1.0".
	Version string
	// Programs are executables by their base name, before the built-in ones.
	Programs map[string]Program
	// EndsWithSandbox ends the agent after DestroySandbox, as the real one's process does. Else it serves on.
	EndsWithSandbox bool
	// MaxRequests is how many requests [Agent.Requests] keeps; 0 is 1024. At most 16 MiB are kept in any case.
	MaxRequests int
	// Log is called with each request before it has any effect; nil: nothing is.
	Log func(Request)
}

// Agent is a fake Kata agent. Its methods may be called from any goroutine.
type Agent struct {
	options Options
	hooks   *hooks

	mu   sync.Mutex
	life *life // nil when nothing is served
}

// life is what ends with the agent's process.
type life struct {
	server  *ttrpc.Server
	sandbox *sandbox
	ctx     context.Context
	cancel  context.CancelFunc

	mu        sync.Mutex
	listeners []*listener
}

// New makes an agent that serves nothing yet.
func New(options Options) *Agent {
	if options.Version == "" {
		options.Version = "4.1.0"
	}
	if options.MaxRequests == 0 {
		options.MaxRequests = 1024
	}
	return &Agent{options: options, hooks: newHooks(options.MaxRequests)}
}

// Serve answers the connections of raw until ctx ends, [Agent.Kill], [Agent.Close]
// or what [Options.EndsWithSandbox] says; it then returns nil. Several listeners share one state.
func (a *Agent) Serve(ctx context.Context, raw net.Listener) error {
	l, sockets, err := a.begin(raw)
	if err != nil {
		return err
	}
	return l.serve(ctx, sockets)
}

// ListenAndServe serves on a new unix socket at path. As with the real agent it
// is an error if something is there already, and the socket stays behind.
func (a *Agent) ListenAndServe(ctx context.Context, path string) error {
	raw, err := listen(path)
	if err != nil {
		return err
	}
	return a.Serve(ctx, raw)
}

// Start is [Agent.ListenAndServe] in the background: when it returns nil, path accepts connections.
func (a *Agent) Start(path string) error {
	raw, err := listen(path)
	if err != nil {
		return err
	}
	l, sockets, err := a.begin(raw)
	if err != nil {
		raw.Close()
		return err
	}
	l.sandbox.programs.Go(func() { _ = l.serve(l.ctx, sockets) })
	return nil
}

func listen(path string) (net.Listener, error) {
	raw, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("serve agent: %w", err)
	}
	raw.SetUnlinkOnClose(false)
	return raw, nil
}

// Kill ends the agent as SIGKILL does: all listeners and connections close at
// once, running calls get no answer, and the state is gone. Hooks and counts stay.
func (a *Agent) Kill() {
	a.mu.Lock()
	l := a.life
	a.life = nil
	a.mu.Unlock()
	if l != nil {
		l.end()
	}
}

// Close is [Agent.Kill] that returns when all programs have ended.
func (a *Agent) Close() {
	a.mu.Lock()
	l := a.life
	a.life = nil
	a.mu.Unlock()
	if l != nil {
		l.end()
		l.sandbox.programs.Wait()
	}
}

// lastWords is how long the answers in flight have when the agent ends by itself.
const lastWords = 100 * time.Millisecond

// retire ends a life as the agent does after DestroySandbox: its state is gone, the answer to that is still sent.
func (a *Agent) retire(l *life) {
	a.mu.Lock()
	if a.life == l {
		a.life = nil
	}
	a.mu.Unlock()
	time.Sleep(lastWords)
	l.end()
}

// begin finds the current life, or starts one, and gives it a listener.
func (a *Agent) begin(raw net.Listener) (*life, *listener, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.life == nil {
		l, err := a.newLife()
		if err != nil {
			return nil, nil, err
		}
		a.life = l
	}
	sockets := &listener{Listener: raw, conns: make(map[net.Conn]struct{})}
	a.life.mu.Lock()
	defer a.life.mu.Unlock()
	a.life.listeners = append(a.life.listeners, sockets)
	return a.life, sockets, nil
}

func (a *Agent) newLife() (*life, error) {
	server, err := ttrpc.NewServer()
	if err != nil {
		return nil, fmt.Errorf("serve agent: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &life{
		server:  server,
		sandbox: newSandbox(ctx, a.options),
		ctx:     ctx,
		cancel:  cancel,
	}
	l.sandbox.retire = func() { go a.retire(l) }
	behaviours := l.sandbox.behaviours()
	services := make(map[string]map[string]ttrpc.Method)
	for _, m := range agentproto.Methods() {
		if services[m.Service] == nil {
			services[m.Service] = make(map[string]ttrpc.Method)
		}
		services[m.Service][m.Name] = a.handler(m, l.sandbox, behaviours[m.Name])
	}
	for name, methods := range services {
		server.Register(name, methods)
	}
	return l, nil
}

// serve answers the connections of sockets until ctx or the life ends.
func (l *life) serve(ctx context.Context, sockets *listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	defer context.AfterFunc(ctx, sockets.end)()
	err := l.server.Serve(ctx, sockets)
	if ctx.Err() != nil || errors.Is(err, ttrpc.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("serve agent: %w", err)
}

// end closes everything of a life.
func (l *life) end() {
	l.mu.Lock()
	for _, sockets := range l.listeners {
		sockets.end()
	}
	l.mu.Unlock()
	l.cancel()
	l.sandbox.stop()
	_ = l.server.Close()
}
