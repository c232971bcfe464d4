// SPDX-License-Identifier: Apache-2.0

package agenttest_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"portcullis/agentproto"
	"portcullis/agentproto/agentpb"
	"portcullis/internal/agenttest"
)

const service = "grpc.AgentService"

// client calls an agent as the host does.
type client struct {
	t   testing.TB
	ctx context.Context
	rpc *ttrpc.Client
}

func start(t testing.TB, options agenttest.Options) (*agenttest.Agent, string) {
	t.Helper()
	agent := agenttest.New(options)
	path := filepath.Join(t.TempDir(), "agent.sock")
	if err := agent.Start(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(agent.Close)
	return agent, path
}

func dial(t testing.TB, path string) *client {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	c := &client{t: t, ctx: ctx, rpc: ttrpc.NewClient(conn)}
	t.Cleanup(func() { c.rpc.Close(); cancel() })
	return c
}

// call returns the reply, or nil and the error.
func (c *client) call(method string, request proto.Message) (proto.Message, error) {
	name := service
	if method == "Check" || method == "Version" {
		name = "grpc.Health"
	}
	m, ok := agentproto.Lookup(name, method)
	if !ok {
		return nil, errors.New("no method " + method)
	}
	reply := m.Response.New().Interface()
	if err := c.rpc.Call(c.ctx, name, method, request, reply); err != nil {
		return nil, err
	}
	return reply, nil
}

// must fails the test where the call fails.
func must[R proto.Message](c *client, method string, request proto.Message) R {
	c.t.Helper()
	reply, err := c.call(method, request)
	if err != nil {
		c.t.Fatalf("%s: %v", method, err)
	}
	return reply.(R)
}

// run makes and starts a container whose first process has args.
func (c *client) run(id string, args ...string) {
	c.t.Helper()
	must[*emptypb.Empty](c, "CreateContainer", &agentpb.CreateContainerRequest{
		ContainerId: id, OCI: &agentpb.Spec{Process: &agentpb.Process{Args: args}},
	})
	must[*emptypb.Empty](c, "StartContainer", &agentpb.StartContainerRequest{ContainerId: id})
}

func TestEveryMethodAnswers(t *testing.T) {
	_, path := start(t, agenttest.Options{})
	c := dial(t, path)
	for _, m := range agentproto.Methods() {
		if m.Name == "GetOOMEvent" {
			continue // blocks; see below
		}
		err := c.rpc.Call(c.ctx, m.Service, m.Name, m.Request.New().Interface(), m.Response.New().Interface())
		if code := status.Code(err); code == codes.Unimplemented || code == codes.Unknown {
			t.Errorf("%s: %v", m.Name, err)
		}
	}
}

func TestContainerLife(t *testing.T) {
	agent, path := start(t, agenttest.Options{})
	c := dial(t, path)
	c.run("app", "/bin/server")
	c.run("logger", "echo", "hello", "world")
	if got := agent.Containers(); !slices.Equal(got, []string{"app", "logger"}) {
		t.Errorf("containers %v", got)
	}
	read := must[*agentpb.ReadStreamResponse](c, "ReadStdout", &agentpb.ReadStreamRequest{ContainerId: "logger", Len: 100})
	if string(read.GetData()) != "hello world\n" {
		t.Errorf("read %q", read.GetData())
	}
	read = must[*agentpb.ReadStreamResponse](c, "ReadStdout", &agentpb.ReadStreamRequest{ContainerId: "logger", Len: 100})
	if len(read.GetData()) != 0 {
		t.Errorf("read behind the end: %q", read.GetData())
	}

	must[*emptypb.Empty](c, "ExecProcess", &agentpb.ExecProcessRequest{
		ContainerId: "app", ExecId: "probe", Process: &agentpb.Process{Args: []string{"false"}},
	})
	if wait := must[*agentpb.WaitProcessResponse](c, "WaitProcess", &agentpb.WaitProcessRequest{ContainerId: "app", ExecId: "probe"}); wait.GetStatus() != 1 {
		t.Errorf("exit code %d, want 1", wait.GetStatus())
	}
	_, err := c.call("WaitProcess", &agentpb.WaitProcessRequest{ContainerId: "app", ExecId: "probe"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("second wait: %v", err)
	}

	first := must[*agentpb.StatsContainerResponse](c, "StatsContainer", &agentpb.StatsContainerRequest{ContainerId: "app"})
	second := must[*agentpb.StatsContainerResponse](c, "StatsContainer", &agentpb.StatsContainerRequest{ContainerId: "app"})
	if a, b := first.GetCgroupStats().GetCpuStats().GetCpuUsage().GetTotalUsage(), second.GetCgroupStats().GetCpuStats().GetCpuUsage().GetTotalUsage(); a == 0 || b <= a {
		t.Errorf("CPU time %d, then %d", a, b)
	}

	must[*emptypb.Empty](c, "SignalProcess", &agentpb.SignalProcessRequest{ContainerId: "app", Signal: uint32(syscall.SIGWINCH)})
	must[*emptypb.Empty](c, "SignalProcess", &agentpb.SignalProcessRequest{ContainerId: "app", Signal: uint32(syscall.SIGTERM)})
	if wait := must[*agentpb.WaitProcessResponse](c, "WaitProcess", &agentpb.WaitProcessRequest{ContainerId: "app"}); wait.GetStatus() != 137 {
		t.Errorf("exit code %d, want 137", wait.GetStatus())
	}
	_, err = c.call("WaitProcess", &agentpb.WaitProcessRequest{ContainerId: "app"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("second wait for the first process: %v", err)
	}
	must[*emptypb.Empty](c, "RemoveContainer", &agentpb.RemoveContainerRequest{ContainerId: "app"})
	must[*emptypb.Empty](c, "DestroySandbox", &agentpb.DestroySandboxRequest{})
	if got := agent.Containers(); len(got) != 0 {
		t.Errorf("containers %v after the end", got)
	}
}

func TestInputComesBackFromCat(t *testing.T) {
	_, path := start(t, agenttest.Options{})
	c := dial(t, path)
	c.run("cat", "/bin/cat")
	sent := make([]byte, 3<<20)
	for i := range sent {
		sent[i] = byte(i * 7 / 3)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for chunk := range slices.Chunk(sent, 512<<10) {
			if _, err := c.call("WriteStdin", &agentpb.WriteStreamRequest{ContainerId: "cat", Data: chunk}); err != nil {
				t.Error(err)
			}
		}
		if _, err := c.call("CloseStdin", &agentpb.CloseStdinRequest{ContainerId: "cat"}); err != nil {
			t.Error(err)
		}
	})
	var got []byte
	for {
		reply, err := c.call("ReadStdout", &agentpb.ReadStreamRequest{ContainerId: "cat", Len: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		data := reply.(*agentpb.ReadStreamResponse).GetData()
		if len(data) == 0 {
			break
		}
		got = append(got, data...)
	}
	group.Wait()
	if !slices.Equal(got, sent) {
		t.Errorf("got %d bytes back of %d, or others", len(got), len(sent))
	}
	if wait := must[*agentpb.WaitProcessResponse](c, "WaitProcess", &agentpb.WaitProcessRequest{ContainerId: "cat"}); wait.GetStatus() != 0 {
		t.Errorf("exit code %d", wait.GetStatus())
	}
}

func TestErrorsCarryTheAgentsCodes(t *testing.T) {
	_, path := start(t, agenttest.Options{})
	c := dial(t, path)
	c.run("app", "server")
	spec := &agentpb.Spec{Process: &agentpb.Process{}}
	for name, test := range map[string]struct {
		method  string
		request proto.Message
		want    codes.Code
	}{
		"start of an unknown container": {"StartContainer", &agentpb.StartContainerRequest{ContainerId: "x1"}, codes.Internal},
		"exec in an unknown container":  {"ExecProcess", &agentpb.ExecProcessRequest{ContainerId: "x1"}, codes.Internal},
		"wait for an unknown container": {"WaitProcess", &agentpb.WaitProcessRequest{ContainerId: "x1"}, codes.InvalidArgument},
		"kill of an unknown container":  {"SignalProcess", &agentpb.SignalProcessRequest{ContainerId: "x1", Signal: 9}, codes.Internal},
		"input of an unknown container": {"WriteStdin", &agentpb.WriteStreamRequest{ContainerId: "x1"}, codes.Internal},
		"read of an unknown exec":       {"ReadStderr", &agentpb.ReadStreamRequest{ContainerId: "app", ExecId: "x1"}, codes.NotFound},
		"stats of an unknown container": {"StatsContainer", &agentpb.StatsContainerRequest{ContainerId: "x1"}, codes.InvalidArgument},
		"second container of one id":    {"CreateContainer", &agentpb.CreateContainerRequest{ContainerId: "app", OCI: spec}, codes.Internal},
		"container id with a slash":     {"CreateContainer", &agentpb.CreateContainerRequest{ContainerId: "../x", OCI: spec}, codes.Internal},
		"container without a spec":      {"CreateContainer", &agentpb.CreateContainerRequest{ContainerId: "x1"}, codes.Internal},
		"second start":                  {"StartContainer", &agentpb.StartContainerRequest{ContainerId: "app"}, codes.Internal},
		"size of no terminal":           {"TtyWinResize", &agentpb.TtyWinResizeRequest{ContainerId: "app"}, codes.Unavailable},
		"file outside the shared tree":  {"CopyFile", &agentpb.CopyFileRequest{Path: "/run/kata-containers/../x"}, codes.Internal},
		"interface that is missing":     {"UpdateInterface", &agentpb.UpdateInterfaceRequest{}, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := c.call(test.method, test.request); status.Code(err) != test.want {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestCreateSandboxEmptiesTheSharedTree(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kata-containers")
	if err := os.MkdirAll(filepath.Join(dir, "shared"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, path := start(t, agenttest.Options{SharedDir: dir})
	must[*emptypb.Empty](dial(t, path), "CreateSandbox", &agentpb.CreateSandboxRequest{})
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("left %v, %v", entries, err)
	}
}

func TestFailureReachesTheClientWithItsDetails(t *testing.T) {
	agent, path := start(t, agenttest.Options{})
	c := dial(t, path)
	st, err := status.New(codes.DataLoss, "lost").WithDetails(&agentpb.OOMEvent{ContainerId: "detail"})
	if err != nil {
		t.Fatal(err)
	}
	agent.Fail("Check", st)
	_, err = c.call("Check", &agentpb.CheckRequest{})
	if !proto.Equal(status.Convert(err).Proto(), st.Proto()) {
		t.Errorf("got %v, want %v", status.Convert(err).Proto(), st.Proto())
	}
	must[*agentpb.HealthCheckResponse](c, "Check", &agentpb.CheckRequest{})
	if got := agent.Calls("Check"); got != 2 {
		t.Errorf("%d calls, want 2", got)
	}
}

func TestBlockedCallsHaveNoEffectAndBlockedRepliesHave(t *testing.T) {
	agent, path := start(t, agenttest.Options{})
	c := dial(t, path)
	create := func(id string) <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := c.call("CreateContainer", &agentpb.CreateContainerRequest{
				ContainerId: id, OCI: &agentpb.Spec{Process: &agentpb.Process{}},
			})
			done <- err
		}()
		return done
	}
	release := agent.Block("CreateContainer")
	done := create("c1")
	if err := agent.Await(c.ctx, "CreateContainer", 1); err != nil {
		t.Fatal(err)
	}
	if got := agent.Containers(); len(got) != 0 {
		t.Errorf("containers %v while blocked", got)
	}
	must[*agentpb.HealthCheckResponse](c, "Check", &agentpb.CheckRequest{})
	release()
	release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}

	release = agent.BlockReply("CreateContainer")
	done = create("c2")
	for !slices.Contains(agent.Containers(), "c2") {
		must[*agentpb.HealthCheckResponse](c, "Check", &agentpb.CheckRequest{})
	}
	select {
	case err := <-done:
		t.Errorf("reply was not held: %v", err)
	default:
	}
	release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestHandlersEndWithTheirConnection(t *testing.T) {
	ended := make(chan struct{})
	agent, path := start(t, agenttest.Options{})
	c := dial(t, path)
	c.run("app", "server")
	go func() {
		defer close(ended)
		if _, err := c.call("ReadStdout", &agentpb.ReadStreamRequest{ContainerId: "app", Len: 1}); err == nil {
			t.Error("read returned without output")
		}
	}()
	if err := agent.Await(c.ctx, "ReadStdout", 1); err != nil {
		t.Fatal(err)
	}
	c.rpc.Close()
	<-ended
	again := dial(t, path)
	if err := agent.Exit("app", "", 7); err != nil {
		t.Fatal(err)
	}
	if wait := must[*agentpb.WaitProcessResponse](again, "WaitProcess", &agentpb.WaitProcessRequest{ContainerId: "app"}); wait.GetStatus() != 7 {
		t.Errorf("exit code %d, want 7", wait.GetStatus())
	}
}

func TestKillEndsCallsAndLeavesAStaleSocket(t *testing.T) {
	agent, path := start(t, agenttest.Options{})
	c := dial(t, path)
	c.run("app", "server")
	done := make(chan error, 1)
	go func() {
		_, err := c.call("ReadStdout", &agentpb.ReadStreamRequest{ContainerId: "app", Len: 1})
		done <- err
	}()
	if err := agent.Await(c.ctx, "ReadStdout", 1); err != nil {
		t.Fatal(err)
	}
	agent.Kill()
	if err := <-done; err == nil {
		t.Error("call outlived the agent")
	}
	if err := agent.Exit("app", "", 0); !errors.Is(err, agenttest.ErrNotServing) {
		t.Errorf("got %v, want ErrNotServing", err)
	}
	if err := agent.Start(path); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("start over a stale socket: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(path); err != nil {
		t.Fatal(err)
	}
	must[*agentpb.HealthCheckResponse](dial(t, path), "Check", &agentpb.CheckRequest{})
	if got := agent.Containers(); len(got) != 0 {
		t.Errorf("containers %v after a restart", got)
	}
}

func TestTheAgentEndsAfterDestroySandbox(t *testing.T) {
	agent := agenttest.New(agenttest.Options{EndsWithSandbox: true})
	defer agent.Close()
	path := filepath.Join(t.TempDir(), "agent.sock")
	done := make(chan error, 1)
	raw, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	go func() { done <- agent.Serve(context.Background(), raw) }()
	c := dial(t, path)
	c.run("app", "server")
	must[*emptypb.Empty](c, "DestroySandbox", &agentpb.DestroySandboxRequest{})
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := agent.Exit("app", "", 0); !errors.Is(err, agenttest.ErrNotServing) {
		t.Errorf("got %v, want ErrNotServing", err)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	agent := agenttest.New(agenttest.Options{})
	defer agent.Close()
	path := filepath.Join(t.TempDir(), "agent.sock")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	raw, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	go func() { done <- agent.Serve(ctx, raw) }()
	c := dial(t, path)
	must[*agentpb.HealthCheckResponse](c, "Check", &agentpb.CheckRequest{})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := c.call("Check", &agentpb.CheckRequest{}); err == nil {
		t.Error("connection outlived Serve")
	}
}

func TestOutputAndEventsCanBeFed(t *testing.T) {
	agent, path := start(t, agenttest.Options{})
	c := dial(t, path)
	c.run("app", "server")
	if err := agent.Feed(c.ctx, "app", "", agenttest.Stderr, []byte("oops")); err != nil {
		t.Fatal(err)
	}
	read := must[*agentpb.ReadStreamResponse](c, "ReadStderr", &agentpb.ReadStreamRequest{ContainerId: "app", Len: 2})
	if string(read.GetData()) != "oo" {
		t.Errorf("read %q", read.GetData())
	}
	if err := agent.OOM("app"); err != nil {
		t.Fatal(err)
	}
	if event := must[*agentpb.OOMEvent](c, "GetOOMEvent", &agentpb.GetOOMEventRequest{}); event.GetContainerId() != "app" {
		t.Errorf("event %v", event)
	}
}

func TestRecordedRequestsAreBounded(t *testing.T) {
	agent, path := start(t, agenttest.Options{MaxRequests: 2})
	c := dial(t, path)
	for _, service := range []string{"a", "b", "c"} {
		must[*agentpb.HealthCheckResponse](c, "Check", &agentpb.CheckRequest{Service: service})
	}
	var got []string
	for _, r := range agent.Requests() {
		got = append(got, r.Message.(*agentpb.CheckRequest).GetService())
	}
	if !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("kept %v", got)
	}
}

func TestManyClientsAtOnce(t *testing.T) {
	_, path := start(t, agenttest.Options{})
	var group sync.WaitGroup
	for i := range 8 {
		c := dial(t, path)
		id := "app" + string(rune('a'+i))
		c.run(id, "server")
		group.Go(func() {
			for range 20 {
				for _, m := range agentproto.Methods() {
					if slices.Contains([]string{"GetOOMEvent", "CreateSandbox", "DestroySandbox"}, m.Name) {
						continue
					}
					_ = c.rpc.Call(c.ctx, m.Service, m.Name, m.Request.New().Interface(), m.Response.New().Interface())
				}
				if _, err := c.call("StatsContainer", &agentpb.StatsContainerRequest{ContainerId: id}); err != nil {
					t.Error(err)
				}
			}
			if _, err := c.call("RemoveContainer", &agentpb.RemoveContainerRequest{ContainerId: id}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

func BenchmarkStatsContainer(b *testing.B) {
	_, path := start(b, agenttest.Options{})
	c := dial(b, path)
	c.ctx = context.Background()
	c.run("app", "server")
	for b.Loop() {
		must[*agentpb.StatsContainerResponse](c, "StatsContainer", &agentpb.StatsContainerRequest{ContainerId: "app"})
	}
}
