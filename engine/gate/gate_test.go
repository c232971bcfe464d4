// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"portcullis/agentproto"
	"portcullis/agentproto/agentpb"
	"portcullis/engine/gate"
)

// Every method is called twice: the agent's error, with its details, and then its answer have to arrive unchanged.
func TestEveryMethodPassesToTheAgentAndBack(t *testing.T) {
	r := newRig(t, rigOptions{policy: allowAll})
	c, direct := r.client(), dialClient(t, r.socket)
	c.must("CreateSandbox", sandbox())
	detail, err := anypb.New(durationpb.New(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	methods := agentproto.Methods()
	if len(methods) == 0 {
		t.Fatal("no methods")
	}
	for _, m := range methods {
		t.Run(m.Service+"/"+m.Name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			if m.Name == "SetPolicy" {
				t.Skip("answered by the gate itself, see TestSetPolicy*")
			}
			want := status.New(codes.AlreadyExists, "refused by "+m.Name)
			want, err := want.WithDetails(detail)
			if err != nil {
				t.Fatal(err)
			}
			calls := r.agent.Calls(m.Name)
			r.agent.Fail(m.Name, want)
			err = c.Call(ctx, m.Service, m.Name, m.Request.New().Interface(), m.Response.New().Interface())
			if diff := cmp.Diff(want.Proto(), status.Convert(err).Proto(), protocmp.Transform()); diff != "" {
				t.Errorf("agent's error changed (-want +got):\n%s", diff)
			}
			if got := r.agent.Calls(m.Name); got != calls+1 {
				t.Errorf("agent was called %d times, want 1", got-calls)
			}
			if m.Name == "GetOOMEvent" { // has no answer until there is an event
				return
			}
			got, ours := m.Response.New().Interface(), m.Response.New().Interface()
			directErr := direct.Call(ctx, m.Service, m.Name, m.Request.New().Interface(), got)
			ourErr := c.Call(ctx, m.Service, m.Name, m.Request.New().Interface(), ours)
			if status.Code(directErr) != status.Code(ourErr) {
				t.Errorf("through the gate: %v, directly: %v", ourErr, directErr)
			}
			if directErr == nil && m.Name != "GetMetrics" && m.Name != "StatsContainer" {
				if diff := cmp.Diff(got, ours, protocmp.Transform()); diff != "" {
					t.Errorf("answer changed (-direct +gate):\n%s", diff)
				}
			}
		})
	}
}

func TestDenialsSayWhyInOneLine(t *testing.T) {
	policy := `package agent_policy

import rego.v1

reasons.ExecProcessRequest contains msg if {
	msg := sprintf("command %s\n is not in the list %s", [concat(" ", input.process.Args), concat("", [x | some i in input.process.Args; x := i])])
}

default ExecProcessRequest := false
`
	r := newRig(t, rigOptions{policy: policy})
	c := r.client()
	for name, args := range map[string][]string{
		"short": {"sh"},
		"long":  {strings.Repeat("é", 3000)},
	} {
		t.Run(name, func(t *testing.T) {
			req := &agentpb.ExecProcessRequest{ContainerId: "app", Process: &agentpb.Process{Args: args}}
			msg := c.fails(codes.PermissionDenied, "ExecProcess", req)
			if !strings.HasPrefix(msg, "ExecProcessRequest is blocked by policy: command "+args[0][:2]) {
				t.Errorf("message %.80q", msg)
			}
			if len(msg) > 1024 || strings.ContainsAny(msg, "\n\r") {
				t.Errorf("message of %d bytes, or of several lines", len(msg))
			}
		})
	}
	if n := r.agent.Calls("ExecProcess"); n != 0 {
		t.Errorf("agent saw %d denied requests", n)
	}
}

func TestUndefinedAndUnknownAreDenied(t *testing.T) {
	r := newRig(t, rigOptions{policy: "package agent_policy\n\nx := 1\n"})
	c := r.client()
	c.fails(codes.PermissionDenied, "StatsContainer", &agentpb.StatsContainerRequest{ContainerId: "app"})
	var resp agentpb.StatsContainerResponse
	err := c.Call(context.Background(), "grpc.AgentService", "Reboot", &agentpb.StatsContainerRequest{}, &resp)
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("unknown method: %v", err)
	}
	err = c.Call(context.Background(), "grpc.Other", "Reboot", &agentpb.StatsContainerRequest{}, &resp)
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("unknown service: %v", err)
	}
}

func TestUnknownFieldsAreRefusedAtAnyDepth(t *testing.T) {
	r := newRig(t, rigOptions{policy: allowAll})
	c := r.client()
	c.must("CreateSandbox", sandbox())
	req := createContainer("app", "sh")
	req.OCI.Process.ProtoReflect().SetUnknown([]byte{0x98, 0x06, 0x01}) // field 99
	msg := c.fails(codes.PermissionDenied, "CreateContainer", req)
	if !strings.Contains(msg, "unknown field 99") || !strings.Contains(msg, "OCI.Process") {
		t.Errorf("message %q does not name the field and its place", msg)
	}
	if n := r.agent.Calls("CreateContainer"); n != 0 {
		t.Error("the agent saw the request")
	}
}

// The host's own encoding never reaches the agent: a field that is there twice is judged and forwarded as one value.
func TestRequestIsReencodedFromWhatWasJudged(t *testing.T) {
	policy := strings.Replace(allowAll, "default StartContainerRequest := true", `StartContainerRequest if input.container_id == "judged"`, 1)
	r := newRig(t, rigOptions{policy: policy})
	twice := append(encode(t, &agentpb.StartContainerRequest{ContainerId: "other"}),
		encode(t, &agentpb.StartContainerRequest{ContainerId: "judged"})...)
	var carrier agentpb.StartContainerRequest
	carrier.ProtoReflect().SetUnknown(twice)
	_, _ = r.client().do(context.Background(), "StartContainer", &carrier)
	seen := r.agent.Requests()
	if len(seen) == 0 {
		t.Fatal("the agent saw nothing")
	}
	got := encode(t, seen[len(seen)-1].Message)
	if want := encode(t, &agentpb.StartContainerRequest{ContainerId: "judged"}); string(got) != string(want) {
		t.Errorf("agent got %x, want %x", got, want)
	}
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDeniedOutputIsEmptiedNotRefused(t *testing.T) {
	policy := strings.Replace(allowAll, "default ReadStreamRequest := true", "default ReadStreamRequest := false", 1)
	r := newRig(t, rigOptions{policy: policy})
	c := r.client()
	c.must("CreateSandbox", sandbox())
	c.must("CreateContainer", createContainer("app", "cat"))
	c.must("StartContainer", &agentpb.StartContainerRequest{ContainerId: "app"})
	c.must("WriteStdin", &agentpb.WriteStreamRequest{ContainerId: "app", Data: []byte("secret")})
	for _, name := range []string{"ReadStdout"} {
		got := c.must(name, &agentpb.ReadStreamRequest{ContainerId: "app", Len: 100}).(*agentpb.ReadStreamResponse)
		if len(got.GetData()) != 0 {
			t.Errorf("%s gave %d bytes of output", name, len(got.GetData()))
		}
	}
	if r.agent.Calls("ReadStdout") != 1 {
		t.Error("the output was not taken from the agent: the container would block")
	}
}

func TestCopyFileIsJudgedWithoutItsData(t *testing.T) {
	policy := strings.Replace(allowAll, "default CopyFileRequest := true", `CopyFileRequest if {
	object.keys(input) == {"path", "file_type", "symlink_target", "file_size", "file_mode", "dir_mode", "uid", "gid", "offset"}
	input.file_type == "Symlink"
	not contains(input.symlink_target, "..")
}

CopyFileRequest if {
	input.file_type == "Regular"
}`, 1)
	r := newRig(t, rigOptions{policy: policy})
	c := r.client()
	file := func(mode uint32, data string) *agentpb.CopyFileRequest {
		return &agentpb.CopyFileRequest{Path: "/run/kata-containers/shared/containers/a", FileMode: mode, Data: []byte(data)}
	}
	c.must("CopyFile", file(0o100644, "\xff\xfe"))
	c.must("CopyFile", file(0o120777, "..data/key"[2:]))
	c.fails(codes.PermissionDenied, "CopyFile", file(0o120777, "../../x"))
	if msg := c.fails(codes.PermissionDenied, "CopyFile", file(0o120777, "\xff")); !strings.Contains(msg, "UTF-8") {
		t.Errorf("message %q", msg)
	}
}

func TestRulesThatAskGetTheDigestOfAFile(t *testing.T) {
	policy := strings.Replace(allowAll, "default CopyFileRequest := true",
		`CopyFileRequest if input.data_sha256 == crypto.sha256("hello")`, 1)
	c := newRig(t, rigOptions{policy: policy}).client()
	path := "/run/kata-containers/shared/containers/a"
	c.must("CopyFile", &agentpb.CopyFileRequest{Path: path, FileMode: 0o100644, Data: []byte("hello")})
	c.fails(codes.PermissionDenied, "CopyFile", &agentpb.CopyFileRequest{Path: path, FileMode: 0o100644, Data: []byte("hellO")})
}

// Bytes that the rules do not read are not built into the input; rules that do read them get them.
func TestBytesReachThePolicyOnlyIfItReadsThem(t *testing.T) {
	for name, test := range map[string]struct {
		rule string
		want codes.Code
	}{
		"not read": {"WriteStreamRequest if not input.data", codes.OK},
		"compared": {"WriteStreamRequest if input.data == [104, 105]", codes.OK},
		"whole":    {"WriteStreamRequest if { x := input; count(x.data) == 2 }", codes.OK},
		"wrong":    {"WriteStreamRequest if input.data == [1]", codes.PermissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			rule := test.rule
			if name == "not read" { // a rule that names input.data would get it
				rule = `WriteStreamRequest if { some k; input[k] == "app"; not object.get(input, "dat", 1) == 2 }
WriteStreamRequest if input.container_id == "app"`
			}
			policy := strings.Replace(allowAll, "default WriteStreamRequest := true", rule, 1)
			c := newRig(t, rigOptions{policy: policy}).client()
			c.must("CreateSandbox", sandbox())
			c.must("CreateContainer", createContainer("app", "cat"))
			c.must("StartContainer", &agentpb.StartContainerRequest{ContainerId: "app"})
			_, err := c.do(context.Background(), "WriteStdin", &agentpb.WriteStreamRequest{ContainerId: "app", Data: []byte("hi")})
			if status.Code(err) != test.want {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestWithoutAgentOnlyPolicyAndHealthAnswer(t *testing.T) {
	r := newRig(t, rigOptions{policy: allowAll, noAgent: true})
	c := r.client()
	ctx := context.Background()
	var health agentpb.HealthCheckResponse
	if err := c.Call(ctx, "grpc.Health", "Check", &agentpb.CheckRequest{}, &health); err != nil {
		t.Errorf("Check: %v", err)
	}
	var version agentpb.VersionCheckResponse
	if err := c.Call(ctx, "grpc.Health", "Version", &agentpb.CheckRequest{}, &version); err != nil {
		t.Errorf("Version: %v", err)
	}
	if msg := c.fails(codes.Unavailable, "StatsContainer", &agentpb.StatsContainerRequest{}); !strings.Contains(msg, "kata-agent") {
		t.Errorf("message %q", msg)
	}
	r.startAgent()
	c.must("CreateSandbox", sandbox())
}

func TestAgentKilledMidCallAndRestarted(t *testing.T) {
	r := newRig(t, rigOptions{policy: allowAll})
	c := r.client()
	c.must("CreateSandbox", sandbox())
	c.must("CreateContainer", createContainer("app", "pause"))
	failed := make(chan error, 1)
	go func() {
		_, err := c.do(context.Background(), "WaitProcess", &agentpb.WaitProcessRequest{ContainerId: "app"})
		failed <- err
	}()
	await(t, r, "WaitProcess", 1)
	r.agent.Kill()
	if err := <-failed; status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "lost") {
		t.Errorf("call in flight: %v", err)
	}
	removeSocket(t, r.socket.Path)
	r.startAgent()
	c.must("CreateSandbox", sandbox())
}

func TestClientDeadlineReachesTheAgent(t *testing.T) {
	r := newRig(t, rigOptions{policy: allowAll})
	c := r.client()
	release := r.agent.Block("StatsContainer")
	defer release()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := c.do(ctx, "StatsContainer", &agentpb.StatsContainerRequest{ContainerId: "app"})
	if !errors.Is(err, context.DeadlineExceeded) && status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
}

func TestClientGoneCancelsItsCallsInTheAgent(t *testing.T) {
	r := newRig(t, rigOptions{policy: allowAll})
	staying, leaving := r.client(), r.client()
	staying.must("CreateSandbox", sandbox())
	staying.must("CreateContainer", createContainer("app", "pause"))
	go leaving.do(context.Background(), "WaitProcess", &agentpb.WaitProcessRequest{ContainerId: "app"}) //nolint:errcheck // it is cut off
	await(t, r, "WaitProcess", 1)
	leaving.Close()
	staying.must("StatsContainer", &agentpb.StatsContainerRequest{ContainerId: "app"})
}

func TestBlockingCallsHoldUpNobody(t *testing.T) {
	r := newRig(t, rigOptions{policy: allowAll})
	c := r.client()
	c.must("CreateSandbox", sandbox())
	c.must("CreateContainer", createContainer("app", "pause"))
	const blocked = 200
	ended := make(chan error, blocked)
	for range blocked {
		go func() {
			_, err := c.do(context.Background(), "WaitProcess", &agentpb.WaitProcessRequest{ContainerId: "app"})
			ended <- err
		}()
	}
	await(t, r, "WaitProcess", blocked)
	c.must("StatsContainer", &agentpb.StatsContainerRequest{ContainerId: "app"})
	c.must("StartContainer", &agentpb.StartContainerRequest{ContainerId: "app"})
	if err := r.agent.Exit("app", "", 0); err != nil {
		t.Fatal(err)
	}
	for range blocked {
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
}

func TestShutdownFinishesRequestsInFlight(t *testing.T) {
	r := newRig(t, rigOptions{policy: allowAll})
	c := r.client()
	c.must("CreateSandbox", sandbox())
	release := r.agent.Block("CreateContainer")
	done := make(chan error, 1)
	go func() {
		_, err := c.do(context.Background(), "CreateContainer", createContainer("app", "sh"))
		done <- err
	}()
	await(t, r, "CreateContainer", 1)
	stopped := make(chan error, 1)
	go func() { stopped <- r.gate.Shutdown(context.Background()) }()
	release()
	if err := <-done; err != nil {
		t.Errorf("request in flight: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if _, err := c.do(context.Background(), "StatsContainer", &agentpb.StatsContainerRequest{}); !errors.Is(err, ttrpc.ErrClosed) {
		t.Errorf("request after shutdown: %v", err)
	}
}

func TestServeAfterShutdownReturns(t *testing.T) {
	r := newRig(t, rigOptions{policy: allowAll})
	if err := r.gate.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	l, err := gate.Address{Path: r.dir + "/late.sock"}.Listen(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.gate.Serve(context.Background(), l); err != nil {
		t.Error(err)
	}
}

func TestShutdownDoesNotWaitForContainersToEnd(t *testing.T) {
	r := newRig(t, rigOptions{policy: allowAll})
	c := r.client()
	c.must("CreateSandbox", sandbox())
	c.must("CreateContainer", createContainer("app", "pause"))
	go c.do(context.Background(), "WaitProcess", &agentpb.WaitProcessRequest{ContainerId: "app"}) //nolint:errcheck // it is cut off
	await(t, r, "WaitProcess", 1)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.gate.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

func TestSetPolicyReplacesAllOrNothing(t *testing.T) {
	r := newRig(t, rigOptions{policy: "package agent_policy\n\ndefault SetPolicyRequest := true\n"})
	c := r.client()
	c.fails(codes.PermissionDenied, "CreateSandbox", sandbox())
	msg := c.fails(codes.InvalidArgument, "SetPolicy", &agentpb.SetPolicyRequest{Policy: "package agent_policy\n\nx := }\n"})
	if !strings.Contains(msg, "policy-invalid") || !strings.Contains(msg, "3:6") {
		t.Errorf("message %q lacks its code, or line and column", msg)
	}
	c.fails(codes.PermissionDenied, "CreateSandbox", sandbox())
	locked := strings.Replace(allowAll, "default SetPolicyRequest := true", "default SetPolicyRequest := false", 1)
	c.must("SetPolicy", &agentpb.SetPolicyRequest{Policy: locked})
	c.must("SetPolicy", &agentpb.SetPolicyRequest{Policy: locked}) // the same bytes
	c.must("CreateSandbox", sandbox())
	msg = c.fails(codes.PermissionDenied, "SetPolicy", &agentpb.SetPolicyRequest{Policy: allowAll})
	if !strings.Contains(msg, "policy-forbidden") {
		t.Errorf("message %q", msg)
	}
}

func TestSetPolicyAfterAnotherPolicyRanIsRefused(t *testing.T) {
	c := newRig(t, rigOptions{policy: allowAll}).client()
	c.must("CreateSandbox", sandbox())
	msg := c.fails(codes.FailedPrecondition, "SetPolicy", &agentpb.SetPolicyRequest{Policy: allowAll + "\n# good\n"})
	if !strings.Contains(msg, "already-running") {
		t.Errorf("message %q", msg)
	}
}

func TestHandlerPanicDeniesAndTheGateLives(t *testing.T) {
	r := newRig(t, rigOptions{policy: allowAll})
	r.gate.PanicOn("GetMetrics")
	c := r.client()
	if msg := c.fails(codes.Internal, "GetMetrics", &agentpb.GetMetricsRequest{}); strings.Contains(msg, "planted") {
		t.Errorf("message %q shows the inside", msg)
	}
	c.must("CreateSandbox", sandbox())
}

func TestTooManyConnectionsAreClosed(t *testing.T) {
	r := newRig(t, rigOptions{policy: allowAll})
	var clients []*client
	for range 16 {
		c := r.client()
		c.must("GetGuestDetails", &agentpb.GuestDetailsRequest{})
		clients = append(clients, c)
	}
	if _, err := r.client().do(context.Background(), "GetGuestDetails", &agentpb.GuestDetailsRequest{}); err == nil {
		t.Error("the 17th connection was served")
	}
	clients[0].Close()
	deadline := time.Now().Add(10 * time.Second)
	for {
		if _, err := r.client().do(context.Background(), "GetGuestDetails", &agentpb.GuestDetailsRequest{}); err == nil {
			return
		} else if time.Now().After(deadline) {
			t.Fatal(fmt.Errorf("no connection after one was closed: %w", err))
		}
	}
}
