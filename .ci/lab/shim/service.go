// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/runtime/task/v2"
	taskapi "github.com/containerd/containerd/api/types/task"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// process is a container's first process, or one that was added to it by exec.
type process struct {
	bundle, stdin, stdout, stderr string
	terminal                      bool
	output                        chan struct{} // closed when the output's pipes are open, or never will be
	pipes                         []*os.File
	started                       bool
	exited                        chan struct{}
	status                        uint32
	at                            time.Time
}

type key struct{ container, exec string }

type service struct {
	records  recorder
	plan     string
	shutdown func()

	mu        sync.Mutex
	processes map[key]*process
	execs     map[string]int // container → how many were recorded
}

func newService(records, plan string, shutdown func()) *service {
	return &service{records: recorder{dir: records}, plan: plan, shutdown: shutdown,
		processes: map[key]*process{}, execs: map[string]int{}}
}

func (s *service) add(k key, p *process) *process {
	p.exited, p.output = make(chan struct{}), make(chan struct{})
	s.mu.Lock()
	s.processes[k] = p
	s.mu.Unlock()
	go p.openOutput()
	return p
}

func (s *service) find(container, exec string) (*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.processes[key{container, exec}]; p != nil {
		return p, nil
	}
	return nil, status.Errorf(codes.NotFound, "lab shim: no process %q in container %q", exec, container)
}

// openOutput takes the writing end of the pipes that containerd reads: it waits for their end before it reports an exec done.
func (p *process) openOutput() {
	defer close(p.output)
	for _, name := range []string{p.stdout, p.stderr} {
		if name == "" {
			continue
		}
		if f, err := os.OpenFile(name, os.O_WRONLY, 0); err == nil {
			p.pipes = append(p.pipes, f)
		}
	}
}

func (s *service) exit(p *process, code uint32) {
	select {
	case <-p.output:
	case <-time.After(5 * time.Second):
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-p.exited:
		return
	default:
	}
	for _, f := range p.pipes {
		f.Close()
	}
	p.status, p.at = code, time.Now()
	close(p.exited)
}

func (p *process) state() taskapi.Status {
	select {
	case <-p.exited:
		return taskapi.Status_STOPPED
	default:
	}
	if p.started {
		return taskapi.Status_RUNNING
	}
	return taskapi.Status_CREATED
}

func pid() uint32 { return uint32(os.Getpid()) }

// Create records the container before it is said to exist: the files of its mounts are then as a shim would copy them.
func (s *service) Create(_ context.Context, r *task.CreateTaskRequest) (*task.CreateTaskResponse, error) {
	if err := s.records.container(r); err != nil {
		return nil, status.Errorf(codes.Internal, "lab shim: record %s: %v", r.ID, err)
	}
	s.add(key{container: r.ID}, &process{bundle: r.Bundle, stdin: r.Stdin, stdout: r.Stdout, stderr: r.Stderr, terminal: r.Terminal})
	return &task.CreateTaskResponse{Pid: pid()}, nil
}

func (s *service) Exec(_ context.Context, r *task.ExecProcessRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	n := s.execs[r.ID]
	s.execs[r.ID]++
	s.mu.Unlock()
	if err := s.records.exec(r, n); err != nil {
		return nil, status.Errorf(codes.Internal, "lab shim: record exec in %s: %v", r.ID, err)
	}
	s.add(key{r.ID, r.ExecID}, &process{stdin: r.Stdin, stdout: r.Stdout, stderr: r.Stderr, terminal: r.Terminal})
	return &emptypb.Empty{}, nil
}

func (s *service) Start(_ context.Context, r *task.StartRequest) (*task.StartResponse, error) {
	p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	p.started = true
	s.mu.Unlock()
	if r.ExecID != "" || endsAtOnce(s.plan, p.bundle) {
		time.AfterFunc(50*time.Millisecond, func() { s.exit(p, 0) })
	}
	return &task.StartResponse{Pid: pid()}, nil
}

func (s *service) State(_ context.Context, r *task.StateRequest) (*task.StateResponse, error) {
	p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	reply := &task.StateResponse{ID: r.ID, ExecID: r.ExecID, Bundle: p.bundle, Pid: pid(), Status: p.state(), Stdin: p.stdin,
		Stdout: p.stdout, Stderr: p.stderr, Terminal: p.terminal, ExitStatus: p.status}
	if !p.at.IsZero() {
		reply.ExitedAt = timestamppb.New(p.at)
	}
	return reply, nil
}

func (s *service) Wait(ctx context.Context, r *task.WaitRequest) (*task.WaitResponse, error) {
	p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.exited:
		return &task.WaitResponse{ExitStatus: p.status, ExitedAt: timestamppb.New(p.at)}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *service) Kill(_ context.Context, r *task.KillRequest) (*emptypb.Empty, error) {
	p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	if r.Signal == uint32(syscall.SIGKILL) || r.Signal == uint32(syscall.SIGTERM) || r.Signal == uint32(syscall.SIGINT) || r.Signal == uint32(syscall.SIGQUIT) {
		s.exit(p, 128+r.Signal)
	}
	return &emptypb.Empty{}, nil
}

func (s *service) Delete(_ context.Context, r *task.DeleteRequest) (*task.DeleteResponse, error) {
	p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	s.exit(p, 137)
	s.mu.Lock()
	delete(s.processes, key{r.ID, r.ExecID})
	s.mu.Unlock()
	return &task.DeleteResponse{Pid: pid(), ExitStatus: p.status, ExitedAt: timestamppb.New(p.at)}, nil
}

// Shutdown ends the process with its last container.
func (s *service) Shutdown(context.Context, *task.ShutdownRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.processes) == 0 {
		s.shutdown()
	}
	return &emptypb.Empty{}, nil
}

func (s *service) Connect(context.Context, *task.ConnectRequest) (*task.ConnectResponse, error) {
	return &task.ConnectResponse{ShimPid: pid(), TaskPid: pid(), Version: "lab"}, nil
}

func (s *service) Pids(context.Context, *task.PidsRequest) (*task.PidsResponse, error) {
	return &task.PidsResponse{Processes: []*taskapi.ProcessInfo{{Pid: pid()}}}, nil
}

func (s *service) ResizePty(context.Context, *task.ResizePtyRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, nil
}

func (s *service) CloseIO(context.Context, *task.CloseIORequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, nil
}

func (s *service) Update(context.Context, *task.UpdateTaskRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, nil
}

func (s *service) Pause(context.Context, *task.PauseRequest) (*emptypb.Empty, error) {
	return nil, notHere("Pause")
}

func (s *service) Resume(context.Context, *task.ResumeRequest) (*emptypb.Empty, error) {
	return nil, notHere("Resume")
}

func (s *service) Checkpoint(context.Context, *task.CheckpointTaskRequest) (*emptypb.Empty, error) {
	return nil, notHere("Checkpoint")
}

func (s *service) Stats(context.Context, *task.StatsRequest) (*task.StatsResponse, error) {
	return nil, notHere("Stats")
}

func notHere(method string) error {
	return status.Errorf(codes.Unimplemented, "lab shim: nothing runs, so there is no %s", method)
}
