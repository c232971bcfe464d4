// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"portcullis/agentproto/agentpb"
)

// sandbox is the state of one life of the agent.
type sandbox struct {
	options  Options
	ctx      context.Context // of the life
	programs sync.WaitGroup
	retire   func()      // ends the agent soon
	oom      chan string // container ids

	mu         sync.Mutex
	stopped    bool
	hostname   string
	containers map[string]*container
	interfaces []*agentpb.Interface
	routes     []*agentpb.Route
}

// container is one container; sandbox.mu guards it.
type container struct {
	running   bool
	paused    bool
	waited    bool // somebody has had the exit code of first
	first     *process
	processes map[string]*process // by exec id; the first is not among them
	samples   uint64              // how often its figures were asked for
}

func newSandbox(ctx context.Context, options Options) *sandbox {
	return &sandbox{
		options:    options,
		ctx:        ctx,
		oom:        make(chan string, 16),
		containers: make(map[string]*container),
		interfaces: []*agentpb.Interface{{
			Device: "lo", Name: "lo", Mtu: 65536, HwAddr: "00:00:00:00:00:00",
			IPAddresses: []*agentpb.IPAddress{{Address: "127.0.0.1", Mask: "8"}},
		}},
	}
}

// behaviours are the methods that do more than succeed.
func (s *sandbox) behaviours() map[string]behaviour {
	return map[string]behaviour{
		"CreateContainer":   on(s.createContainer),
		"StartContainer":    on(s.startContainer),
		"RemoveContainer":   on(s.removeContainer),
		"ExecProcess":       on(s.execProcess),
		"SignalProcess":     on(s.signalProcess),
		"WaitProcess":       on(s.waitProcess),
		"UpdateContainer":   on(s.updateContainer),
		"StatsContainer":    on(s.statsContainer),
		"PauseContainer":    on(s.pauseContainer),
		"ResumeContainer":   on(s.resumeContainer),
		"WriteStdin":        on(s.writeStdin),
		"ReadStdout":        on(s.readStdout),
		"ReadStderr":        on(s.readStderr),
		"CloseStdin":        on(s.closeStdin),
		"TtyWinResize":      on(s.ttyWinResize),
		"UpdateInterface":   on(s.updateInterface),
		"UpdateRoutes":      on(s.updateRoutes),
		"ListInterfaces":    on(s.listInterfaces),
		"ListRoutes":        on(s.listRoutes),
		"GetIPTables":       on(s.getIPTables),
		"CreateSandbox":     on(s.createSandbox),
		"DestroySandbox":    on(s.destroySandbox),
		"GetGuestDetails":   on(s.getGuestDetails),
		"CopyFile":          on(s.copyFile),
		"GetOOMEvent":       on(s.getOOMEvent),
		"GetMetrics":        on(s.getMetrics),
		"GetDiagnosticData": on(s.getDiagnosticData),
		"GetVolumeStats":    on(s.getVolumeStats),
		"Check":             on(s.check),
		"Version":           on(s.version),
	}
}

// withContainer runs do with the container of that id, under the lock.
func (s *sandbox) withContainer(id string, missing codes.Code, do func(*container) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.containers[id]
	switch {
	case !ok && missing == codes.Internal:
		return status.Error(missing, "Invalid container id")
	case !ok:
		return status.Error(missing, "invalid container id")
	}
	return do(c)
}

// process finds a process. An empty exec id, or the container's, is the first one.
func (s *sandbox) process(containerID, execID string) (*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.containers[containerID]
	if !ok {
		return nil, status.Error(codes.InvalidArgument, "Invalid container id")
	}
	switch p, ok := c.processes[execID]; {
	case ok:
		return p, nil
	case execID != "" && (execID != containerID || c.waited):
		return nil, status.Error(codes.NotFound, "Process not found: invalid exec id")
	case c.waited:
		return nil, status.Error(codes.NotFound, "Process not found: init process missing")
	}
	return c.first, nil
}

// state is the agent's word for the container's state.
func (c *container) state() string {
	switch {
	case c.paused:
		return "Paused"
	case c.running:
		return "Running"
	}
	return "Created"
}

// stop ends all processes; none starts after it.
func (s *sandbox) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	for _, c := range s.containers {
		c.kill()
	}
}

// kill ends all processes of a container.
func (c *container) kill() {
	c.first.exit(killed)
	for _, p := range c.processes {
		p.exit(killed)
	}
}
