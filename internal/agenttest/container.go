// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"regexp"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"portcullis/agentproto/agentpb"
)

// validID is the form of a container or exec id.
var validID = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// killed is the exit code of a process that was ended by SIGKILL.
const killed = 128 + int32(syscall.SIGKILL)

func (s *sandbox) createContainer(_ context.Context, q *agentpb.CreateContainerRequest) (*emptypb.Empty, error) {
	if !validID.MatchString(q.GetContainerId()) {
		return nil, status.Errorf(codes.Internal, "invalid container ID: %q", q.GetContainerId())
	}
	if q.GetOCI().GetProcess() == nil {
		return nil, status.Error(codes.Internal, "no OCI spec in the create container request")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.containers[q.GetContainerId()]; ok {
		return nil, status.Errorf(codes.Internal, "container %s exists already", q.GetContainerId())
	}
	s.containers[q.GetContainerId()] = &container{
		first:     s.newProcess(q.GetOCI().GetProcess(), true),
		processes: make(map[string]*process),
	}
	return &emptypb.Empty{}, nil
}

func (s *sandbox) startContainer(_ context.Context, q *agentpb.StartContainerRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.withContainer(q.GetContainerId(), codes.Internal, func(c *container) error {
		if c.running {
			return status.Error(codes.Internal, "container is running already")
		}
		c.running = true
		s.start(c.first)
		return nil
	})
}

func (s *sandbox) removeContainer(_ context.Context, q *agentpb.RemoveContainerRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.withContainer(q.GetContainerId(), codes.Internal, func(c *container) error {
		c.kill()
		delete(s.containers, q.GetContainerId())
		return nil
	})
}

func (s *sandbox) execProcess(_ context.Context, q *agentpb.ExecProcessRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.withContainer(q.GetContainerId(), codes.Internal, func(c *container) error {
		_, taken := c.processes[q.GetExecId()]
		switch {
		case q.GetProcess() == nil:
			return status.Error(codes.Internal, "no process in the exec request")
		case !validID.MatchString(q.GetExecId()):
			return status.Errorf(codes.Internal, "invalid exec ID: %q", q.GetExecId())
		case taken:
			return status.Errorf(codes.Internal, "exec_id '%s' already exists", q.GetExecId())
		case !c.running || c.first.ended():
			return status.Error(codes.Internal, "container is not running")
		}
		p := s.newProcess(q.GetProcess(), false)
		c.processes[q.GetExecId()] = p
		s.start(p)
		return nil
	})
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (s *sandbox) signalProcess(_ context.Context, q *agentpb.SignalProcessRequest) (*emptypb.Empty, error) {
	number := syscall.Signal(q.GetSignal())
	if q.GetExecId() == "" && number == syscall.SIGKILL { // all of the container, by its cgroup
		return &emptypb.Empty{}, s.withContainer(q.GetContainerId(), codes.Internal, func(c *container) error {
			c.kill()
			return nil
		})
	}
	p, err := s.process(q.GetContainerId(), q.GetExecId())
	if err != nil {
		return nil, err
	}
	if p.first && number == syscall.SIGTERM { // which a first process without a handler would not feel
		number = syscall.SIGKILL
	}
	p.signal(number)
	if !p.first || !p.ended() {
		return &emptypb.Empty{}, nil
	}
	// Without its first process the others of a pid namespace end too.
	return &emptypb.Empty{}, s.withContainer(q.GetContainerId(), codes.Internal, func(c *container) error {
		c.kill()
		return nil
	})
}

// waitedFor is the key of a *process in the context of WaitProcess.
type waitedFor struct{}

// find gives WaitProcess its process before the call is counted: who has awaited
// the calls of several waiters can end the process, and each gets the exit code.
func (s *sandbox) find(ctx context.Context, request proto.Message) context.Context {
	if q, ok := request.(*agentpb.WaitProcessRequest); ok {
		if p, err := s.process(q.GetContainerId(), q.GetExecId()); err == nil {
			return context.WithValue(ctx, waitedFor{}, p)
		}
	}
	return ctx
}

// waitProcess forgets a process that has ended: its output is lost, and there is nothing to wait for again.
func (s *sandbox) waitProcess(ctx context.Context, q *agentpb.WaitProcessRequest) (*agentpb.WaitProcessResponse, error) {
	p, ok := ctx.Value(waitedFor{}).(*process)
	if !ok {
		var err error
		if p, err = s.process(q.GetContainerId(), q.GetExecId()); err != nil {
			return nil, err
		}
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.containers[q.GetContainerId()]; ok {
		switch {
		case c.first == p:
			c.waited = true
		case c.processes[q.GetExecId()] == p:
			delete(c.processes, q.GetExecId())
		}
	}
	return &agentpb.WaitProcessResponse{Status: p.code}, nil
}

func (s *sandbox) updateContainer(_ context.Context, q *agentpb.UpdateContainerRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.withContainer(q.GetContainerId(), codes.InvalidArgument, func(*container) error { return nil })
}

func (s *sandbox) pauseContainer(_ context.Context, q *agentpb.PauseContainerRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.setPaused(q.GetContainerId(), true)
}

func (s *sandbox) resumeContainer(_ context.Context, q *agentpb.ResumeContainerRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.setPaused(q.GetContainerId(), false)
}

func (s *sandbox) setPaused(id string, paused bool) error {
	return s.withContainer(id, codes.InvalidArgument, func(c *container) error {
		switch {
		case paused && c.paused:
			return status.Error(codes.Internal, "failed to pause container: current status is: Paused")
		case !paused && !c.paused:
			return status.Errorf(codes.Internal, "container status is: %s, not paused", c.state())
		}
		c.paused = paused
		return nil
	})
}

// statsContainer makes up figures that grow with every call.
func (s *sandbox) statsContainer(_ context.Context, q *agentpb.StatsContainerRequest) (*agentpb.StatsContainerResponse, error) {
	var n, processes uint64
	err := s.withContainer(q.GetContainerId(), codes.InvalidArgument, func(c *container) error {
		c.samples++
		n, processes = c.samples, 1+uint64(len(c.processes))
		return nil
	})
	if err != nil {
		return nil, err
	}
	const step = 1_000_000
	return &agentpb.StatsContainerResponse{
		CgroupStats: &agentpb.CgroupStats{
			CpuStats: &agentpb.CpuStats{
				CpuUsage:       &agentpb.CpuUsage{TotalUsage: 5 * n * step, UsageInKernelmode: 2 * n * step, UsageInUsermode: 3 * n * step},
				ThrottlingData: &agentpb.ThrottlingData{},
			},
			MemoryStats: &agentpb.MemoryStats{
				Cache: 4096 * n,
				Usage: &agentpb.MemoryData{Usage: 8<<20 + 4096*n, MaxUsage: 16 << 20, Limit: 256 << 20},
				Stats: map[string]uint64{"anon": 8 << 20, "file": 4096 * n},
			},
			PidsStats: &agentpb.PidsStats{Current: processes},
		},
	}, nil
}
