// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"portcullis/agentproto/agentpb"
	"portcullis/engine"
	"portcullis/engine/gate"
)

const shared = "/run/kata-containers/shared/containers/"

func TestRulesThatAskGetTheLengthOfAFile(t *testing.T) {
	policy := strings.Replace(allowAll, "default CopyFileRequest := true",
		`CopyFileRequest if { input.data_size == input.file_size; not input.data_sha256 }
CopyFileRequest if { input.data_size == 3; input.data_sha256 == crypto.sha256("abc") }`, 1)
	c := newRig(t, rigOptions{policy: policy}).client()
	file := func(size int64, data string) *agentpb.CopyFileRequest {
		return &agentpb.CopyFileRequest{Path: shared + "a", FileMode: 0o100644, FileSize: size, Data: []byte(data)}
	}
	c.must("CopyFile", file(3, "abc"))
	c.fails(codes.PermissionDenied, "CopyFile", file(5, "hello")) // a policy that names the digest has it
	c.fails(codes.PermissionDenied, "CopyFile", file(4, "ab"))
}

// What is no plain file for everybody is judged as one thing and made another by the agent.
func TestFileModesOfSeveralTypesAreRefused(t *testing.T) {
	r := newRig(t, rigOptions{policy: allowAll})
	c := r.client()
	for _, mode := range []uint32{0o130777, 0o060000, 0o140000, 0o160644, 0o170000, 0o150777, 0o110644, 0o020666, 0o010644, 0o030000, 0o050755, 0o070000} {
		msg := c.fails(codes.PermissionDenied, "CopyFile", &agentpb.CopyFileRequest{Path: shared + "a", FileMode: mode})
		if !strings.Contains(msg, "file_mode is not that of") {
			t.Errorf("mode %o: %s", mode, msg)
		}
	}
	for _, mode := range []uint32{0o100644, 0o104755, 0o040755} {
		c.must("CopyFile", &agentpb.CopyFileRequest{Path: shared + "b" + fmt.Sprint(mode), FileMode: mode})
	}
	if n := r.agent.Calls("CopyFile"); n != 3 {
		t.Errorf("the agent was called %d times", n)
	}
}

// Files of different names share a temporary one in the agent, on whatever connection they come.
func TestOneFileAtATimeIsWithTheAgent(t *testing.T) {
	for name, policy := range map[string]string{
		"without ops": allowAll,
		"with ops": strings.Replace(allowAll, "default CopyFileRequest := true",
			`CopyFileRequest := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/last", "value": input.path}]} if input.offset == 7
CopyFileRequest := true if input.offset == 0`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rigOptions{policy: policy})
			release := r.agent.Block("CopyFile")
			gone, cancel := context.WithCancel(context.Background())
			var all sync.WaitGroup
			for i, file := range []string{"tls.crt", "tls.key"} {
				c := r.client()
				ctx := context.Background()
				if i == 0 {
					ctx = gone
				}
				all.Go(func() {
					_, err := c.do(ctx, "CopyFile", &agentpb.CopyFileRequest{Path: shared + file, FileMode: 0o100644, Offset: int64(7 * i)})
					if err != nil && i > 0 {
						t.Error(err)
					}
				})
				if i == 0 {
					await(t, r, "CopyFile", 1)
				}
			}
			cancel() // the agent is still at work for the client that has gone
			time.Sleep(100 * time.Millisecond)
			if n := r.agent.Calls("CopyFile"); n != 1 {
				t.Errorf("%d files were with the agent at once", n)
			}
			release()
			all.Wait()
			if n := r.agent.Calls("CopyFile"); n != 2 {
				t.Errorf("the agent was called %d times", n)
			}
		})
	}
}

// What a request was judged by may be another thing by the time that it can be sent.
func TestAFileThatWaitedIsJudgedAgain(t *testing.T) {
	r := newRig(t, rigOptions{policy: strings.NewReplacer(
		"default CopyFileRequest := true", "CopyFileRequest if not data.pstate.closed",
		"default CreateContainerRequest := true", `CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/closed", "value": true}]}`,
	).Replace(allowAll)})
	c := r.client()
	c.must("CreateSandbox", sandbox())
	release := r.agent.Block("CopyFile")
	errs := []chan error{make(chan error, 1), make(chan error, 1)}
	for i := range errs {
		go func() {
			_, err := r.client().do(context.Background(), "CopyFile", &agentpb.CopyFileRequest{Path: shared + fmt.Sprint(i), FileMode: 0o100644})
			errs[i] <- err
		}()
		if i == 0 {
			await(t, r, "CopyFile", 1)
		}
	}
	time.Sleep(100 * time.Millisecond) // the second one was allowed, and waits
	c.must("CreateContainer", createContainer("app", "pause"))
	release()
	if err := <-errs[0]; err != nil {
		t.Error(err)
	}
	if err := <-errs[1]; status.Code(err) != codes.PermissionDenied {
		t.Errorf("a file that the policy does not allow any more: %v", err)
	}
	if n := r.agent.Calls("CopyFile"); n != 1 {
		t.Errorf("the agent got %d files", n)
	}
}

// While a file waits for its turn, the one before it, or a container, can make a link of its directory.
func TestAFileThatWaitedIsNotWrittenThroughALink(t *testing.T) {
	r := newRig(t, rigOptions{policy: allowAll})
	r.client().must("CreateSandbox", sandbox())
	dir := t.TempDir()
	file := func(path string) proto.Message { return &agentpb.CopyFileRequest{Path: path, FileMode: 0o100644} }
	isNotSentThroughALink(t, r, "CopyFile", file(shared+"a"), file(dir+"/later/file"), dir+"/later")
}

// So can others while a container waits for the state.
func TestAContainerThatWaitedIsNotMadeThroughALink(t *testing.T) {
	r := newRig(t, rigOptions{policy: strings.Replace(allowAll, "default CreateContainerRequest := true",
		`CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/created", "value": true}]}`, 1)})
	r.client().must("CreateSandbox", sandbox())
	dir := t.TempDir()
	mounts := createContainer("web", "pause")
	mounts.OCI.Mounts = []*agentpb.Mount{{Destination: "/x", Source: dir + "/later/x", Type: "bind", Options: []string{"rbind"}}}
	isNotSentThroughALink(t, r, "CreateContainer", createContainer("app", "pause"), mounts, dir+"/later")
	r.client().must("CreateContainer", createContainer("web", "pause")) // nothing of it is held, its id neither
}

// isNotSentThroughALink has the agent work on the first of two requests for so long that the second, allowed already, waits until a
// path in it leads through a link.
func isNotSentThroughALink(t *testing.T, r *rig, method string, first, second proto.Message, link string) {
	t.Helper()
	release := r.agent.Block(method)
	errs := []chan error{make(chan error, 1), make(chan error, 1)}
	send := func(n int, request proto.Message) {
		_, err := r.client().do(context.Background(), method, request)
		errs[n] <- err
	}
	go send(0, first)
	await(t, r, method, 1)
	go send(1, second)
	time.Sleep(200 * time.Millisecond) // it was allowed, and waits
	if err := os.Symlink("/usr", link); err != nil {
		t.Fatal(err)
	}
	release()
	if err := <-errs[0]; err != nil {
		t.Error(err)
	}
	if err := <-errs[1]; status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "leads through the link") {
		t.Errorf("a %s with a path that has become a link: %v", method, err)
	}
	if n := r.agent.Calls(method); n != 1 {
		t.Errorf("the agent got %d of %s", n, method)
	}
}

// replaced is a policy that is replaced, unless it stays, whenever it has allowed something.
type replaced struct {
	gate.Policies
	stays atomic.Bool
}

func (r *replaced) Stands(v *engine.Verdict) bool { return r.stays.Load() && r.Policies.Stands(v) }

func TestWhatAnotherPolicyAllowedIsNotSent(t *testing.T) {
	var policies replaced
	r := newRig(t, rigOptions{policy: onePod, between: func(p gate.Policies) gate.Policies {
		policies.Policies = p
		return &policies
	}})
	c := r.client()
	for method, req := range map[string]proto.Message{
		"CreateContainer": createContainer("app", "pause"), // with ops
		"StatsContainer":  &agentpb.StatsContainerRequest{ContainerId: "app"},
		"WaitProcess":     &agentpb.WaitProcessRequest{ContainerId: "app"},
		"CopyFile":        &agentpb.CopyFileRequest{Path: shared + "a", FileMode: 0o100644},
	} {
		msg := c.fails(codes.PermissionDenied, method, req)
		if n := r.agent.Calls(method); n != 0 || !strings.Contains(msg, "the policy was replaced") {
			t.Errorf("%s reached the agent %d times: %s", method, n, msg)
		}
	}
	policies.stays.Store(true)
	c.must("CreateSandbox", sandbox())
	if running(t, c) {
		t.Error("the state follows what was not sent")
	}
}

// A request that is decided already is served where the next one is read, unless it waits for anything.
func TestASmallFileKeepsNobodyWaiting(t *testing.T) {
	r := newRig(t, rigOptions{policy: allowAll})
	c := r.client()
	c.must("CreateSandbox", sandbox())
	link := &agentpb.CopyFileRequest{Path: shared + "l", FileMode: 0o120777, Data: []byte("d")}
	c.must("CopyFile", link) // so that it is remembered
	c.must("GetGuestDetails", &agentpb.GuestDetailsRequest{})
	release := r.agent.Block("CopyFile")
	defer release()
	go c.do(context.Background(), "CopyFile", link) //nolint:errcheck // it ends with the test
	await(t, r, "CopyFile", 2)
	c.must("GetGuestDetails", &agentpb.GuestDetailsRequest{})
}

func TestBeforeAnythingRunsNoOutputIsReadFromTheAgent(t *testing.T) {
	r := newRig(t, rigOptions{policy: "package agent_policy\n\ndefault SetPolicyRequest := true\n"})
	c := r.client()
	read := &agentpb.ReadStreamRequest{ContainerId: "app", Len: 10}
	for _, method := range []string{"ReadStdout", "ReadStderr"} {
		c.fails(codes.PermissionDenied, method, read)
		if n := r.agent.Calls(method); n != 0 {
			t.Errorf("%s reached the agent", method)
		}
	}
	c.must("SetPolicy", &agentpb.SetPolicyRequest{Policy: "package agent_policy\n\ndefault ReadStreamRequest := false\n"})
	_, _ = c.do(context.Background(), "ReadStdout", read)
	if n := r.agent.Calls("ReadStdout"); n != 1 {
		t.Errorf("a policy's denial of output reached the agent %d times, want once", n)
	}
}

// What self-protection refuses never reaches the agent, also where output is withheld by reading it.
func TestOutputOfWhatIsNoNameIsNotReadFromTheAgent(t *testing.T) {
	for _, policy := range []string{allowAll, "package agent_policy\n\ndefault SetPolicyRequest := true\ndefault CreateSandboxRequest := true\n"} {
		r := newRig(t, rigOptions{policy: policy})
		c := r.client()
		c.must("CreateSandbox", sandbox())
		for _, read := range []*agentpb.ReadStreamRequest{{ContainerId: "x/../app", Len: 10}, {ContainerId: "app", ExecId: "..", Len: 10}} {
			c.fails(codes.PermissionDenied, "ReadStdout", read)
		}
		if n := r.agent.Calls("ReadStdout"); n != 0 {
			t.Errorf("ReadStdout reached the agent %d times", n)
		}
	}
}

// Nobody judges a call's metadata, so it ends at the gate.
func TestMetadataOfTheClientEndsAtTheGate(t *testing.T) {
	r := newRig(t, rigOptions{policy: allowAll, noAgent: true})
	got := make(chan ttrpc.MD, 1)
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	server.RegisterService("grpc.AgentService", &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"DestroySandbox": func(ctx context.Context, unmarshal func(any) error) (any, error) {
			md, _ := ttrpc.GetMetadata(ctx)
			got <- md
			return &emptypb.Empty{}, unmarshal(&agentpb.DestroySandboxRequest{})
		},
	}})
	l, err := net.Listen("unix", filepath.Join(r.dir, "agent.sock"))
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(context.Background(), l) //nolint:errcheck // ends with Close
	t.Cleanup(func() { server.Close() })
	ctx := ttrpc.WithMetadata(context.Background(), ttrpc.MD{"traceparent": {"00-1"}, "other": {"a", "b"}})
	if _, err := r.client().do(ctx, "DestroySandbox", &agentpb.DestroySandboxRequest{}); err != nil {
		t.Fatal(status.Convert(err).Message())
	}
	if md := <-got; len(md) > 0 {
		t.Errorf("the agent got %v", md)
	}
}
