// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"portcullis/agentproto"
	"portcullis/agentproto/agentpb"
)

// storyPolicy allows everything but one program, and remembers the containers.
const storyPolicy = `package agent_policy

import rego.v1

default CheckRequest := true
default CopyFileRequest := true
default CreateSandboxRequest := true
default DestroySandboxRequest := true
default GuestDetailsRequest := true
default GetMetricsRequest := true
default GetOOMEventRequest := true
default ListInterfacesRequest := true
default PauseContainerRequest := true
default ReadStreamRequest := true
default ResumeContainerRequest := true
default SignalProcessRequest := true
default StartContainerRequest := true
default StatsContainerRequest := true
default TtyWinResizeRequest := true
default UpdateContainerRequest := true
default WaitProcessRequest := true
default WriteStreamRequest := true

ExecProcessRequest if input.process.Args[0] != "/bin/refused"

CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": path, "value": true}]} if {
	path := concat("/", ["/pstate", input.container_id])
	not data.pstate[input.container_id]
}

RemoveContainerRequest := {"allowed": true, "ops": [{"op": "remove", "path": concat("/", ["/pstate", input.container_id])}]} if {
	data.pstate[input.container_id]
}
`

const (
	podID     = "pod"
	podRootfs = "/run/kata-containers/shared/containers/pod/rootfs"
	// copyChunk is how much of a file one CopyFile carries, in bytes.
	copyChunk = 1 << 20
)

// step is one request of a pod's life and what comes back. The zero code is OK.
type step struct {
	does    string
	method  string // of grpc.AgentService, or Health/NAME
	request proto.Message
	reply   proto.Message // nil: any
	code    codes.Code
	says    string // in the error
}

// podSpec is a container of the story: the first program waits to be killed.
func podSpec(id string, mounts ...*agentpb.Mount) *agentpb.CreateContainerRequest {
	return &agentpb.CreateContainerRequest{ContainerId: id, OCI: &agentpb.Spec{
		Version: "1.1.0",
		Process: podProcess("/bin/sleep"),
		Root:    &agentpb.Root{Path: podRootfs},
		Mounts:  append([]*agentpb.Mount{{Destination: "/proc", Source: "proc", Type: "proc"}}, mounts...),
		Linux: &agentpb.Linux{
			CgroupsPath: "/pods/" + id,
			Namespaces:  []*agentpb.LinuxNamespace{{Type: "mount"}, {Type: "ipc"}, {Type: "uts"}},
			Resources:   &agentpb.LinuxResources{},
		},
	}}
}

func podProcess(args ...string) *agentpb.Process {
	capabilities := []string{"CAP_KILL"}
	return &agentpb.Process{
		Args: args, Cwd: "/", Env: []string{"PATH=/bin"}, User: &agentpb.User{}, NoNewPrivileges: true,
		Capabilities: &agentpb.LinuxCapabilities{Bounding: capabilities, Effective: capabilities, Permitted: capabilities},
	}
}

func podExec(id string, args ...string) *agentpb.ExecProcessRequest {
	return &agentpb.ExecProcessRequest{ContainerId: podID, ExecId: id, Process: podProcess(args...)}
}

func podRead(id string) *agentpb.ReadStreamRequest {
	return &agentpb.ReadStreamRequest{ContainerId: podID, ExecId: id, Len: 4096}
}

func podWait(id string) *agentpb.WaitProcessRequest {
	return &agentpb.WaitProcessRequest{ContainerId: podID, ExecId: id}
}

// copyRootfs carries the program over in pieces, and a link for each of its names.
func copyRootfs(program []byte) []step {
	send := func(name string, mode uint32, data []byte, offset int) step {
		return step{does: "copy " + name, method: "CopyFile", reply: &emptypb.Empty{}, request: &agentpb.CopyFileRequest{
			Path: podRootfs + name, FileMode: mode, DirMode: 0o755, FileSize: int64(len(program)), Data: data, Offset: int64(offset),
		}}
	}
	const dir, regular, link = 0o040755, 0o100755, 0o120777
	steps := []step{send("/proc", dir, nil, 0), send("/dev", dir, nil, 0)}
	for offset := 0; offset < len(program); offset += copyChunk {
		steps = append(steps, send("/program", regular, program[offset:min(offset+copyChunk, len(program))], offset))
	}
	for _, name := range []string{"sleep", "echo", "cat", "false"} {
		steps = append(steps, send("/bin/"+name, link, []byte("/program"), 0))
	}
	return steps
}

// beginning is what happens before there is a container.
func beginning() []step {
	return []step{
		{does: "take the policy", method: "SetPolicy", request: &agentpb.SetPolicyRequest{Policy: storyPolicy}, reply: &emptypb.Empty{}},
		{does: "ask whether it serves", method: "Health/Check", request: &agentpb.CheckRequest{}, reply: &agentpb.HealthCheckResponse{Status: agentpb.HealthCheckResponse_SERVING}},
		{does: "ask for the version", method: "Health/Version", request: &agentpb.CheckRequest{}},
		{does: "ask for the guest's details", method: "GetGuestDetails", request: &agentpb.GuestDetailsRequest{MemBlockSize: true}},
		{does: "make the sandbox", method: "CreateSandbox", request: &agentpb.CreateSandboxRequest{SandboxId: podID, Hostname: "interop"}, reply: &emptypb.Empty{}},
		{does: "start a container that is not there", method: "StartContainer", request: &agentpb.StartContainerRequest{ContainerId: podID}, code: codes.Internal, says: "Invalid container id"},
		{does: "exec in a container that is not there", method: "ExecProcess", request: podExec("early", "/bin/echo"), code: codes.Internal, says: "Invalid container id"},
		{does: "wait in a container that is not there", method: "WaitProcess", request: podWait(""), code: codes.InvalidArgument, says: "Invalid container id"},
		{does: "stats of a container that is not there", method: "StatsContainer", request: &agentpb.StatsContainerRequest{ContainerId: podID}, code: codes.InvalidArgument, says: "invalid container id"},
	}
}

// middle is the life of the one container.
func middle() []step {
	kill := func(exec string) *agentpb.SignalProcessRequest {
		return &agentpb.SignalProcessRequest{ContainerId: podID, ExecId: exec, Signal: 9}
	}
	theGate := &agentpb.Mount{Destination: "/mnt", Source: "/run/portcullis", Type: "bind", Options: []string{"rbind"}}
	return []step{
		{does: "mount the gate's own directory", method: "CreateContainer", request: podSpec("thief", theGate), code: codes.PermissionDenied, says: "belongs to the policy gate"},
		{does: "start what was refused", method: "StartContainer", request: &agentpb.StartContainerRequest{ContainerId: "thief"}, code: codes.Internal, says: "Invalid container id"},
		{does: "create the container", method: "CreateContainer", request: podSpec(podID), reply: &emptypb.Empty{}},
		{does: "create it a second time", method: "CreateContainer", request: podSpec(podID), code: codes.PermissionDenied, says: "blocked by policy"},
		{does: "start it", method: "StartContainer", request: &agentpb.StartContainerRequest{ContainerId: podID}, reply: &emptypb.Empty{}},
		{does: "exec", method: "ExecProcess", request: podExec("allowed", "/bin/echo", "from", "inside"), reply: &emptypb.Empty{}},
		{does: "exec what the policy refuses", method: "ExecProcess", request: podExec("denied", "/bin/refused"), code: codes.PermissionDenied, says: "ExecProcessRequest is blocked by policy"},
		{does: "wait for what was refused", method: "WaitProcess", request: podWait("denied"), code: codes.NotFound, says: "invalid exec id"},
		{does: "read its output", method: "ReadStdout", request: podRead("allowed"), reply: &agentpb.ReadStreamResponse{Data: []byte("from inside\n")}},
		{does: "read to the end of its output", method: "ReadStdout", request: podRead("allowed"), reply: &agentpb.ReadStreamResponse{}},
		{does: "read its errors, of which there are none", method: "ReadStderr", request: podRead("allowed"), reply: &agentpb.ReadStreamResponse{}},
		{does: "wait for its end", method: "WaitProcess", request: podWait("allowed"), reply: &agentpb.WaitProcessResponse{}},
		{does: "read what was waited for", method: "ReadStdout", request: podRead("allowed"), code: codes.NotFound, says: "invalid exec id"},
		{does: "exec what fails", method: "ExecProcess", request: podExec("fails", "/bin/false"), reply: &emptypb.Empty{}},
		{does: "wait for its exit code", method: "WaitProcess", request: podWait("fails"), reply: &agentpb.WaitProcessResponse{Status: 1}},
		{does: "exec what reads", method: "ExecProcess", request: podExec("reads", "/bin/cat"), reply: &emptypb.Empty{}},
		{does: "write to its input", method: "WriteStdin", request: &agentpb.WriteStreamRequest{ContainerId: podID, ExecId: "reads", Data: []byte("ping")}, reply: &agentpb.WriteStreamResponse{Len: 4}},
		{does: "read it back", method: "ReadStdout", request: podRead("reads"), reply: &agentpb.ReadStreamResponse{Data: []byte("ping")}},
		{does: "resize a terminal that is none", method: "TtyWinResize", request: &agentpb.TtyWinResizeRequest{ContainerId: podID, ExecId: "reads", Row: 24, Column: 80}, code: codes.Unavailable, says: "no tty"},
		{does: "close its input", method: "WriteStdin", request: &agentpb.WriteStreamRequest{ContainerId: podID, ExecId: "reads"}, reply: &agentpb.WriteStreamResponse{}},
		{does: "wait for its end", method: "WaitProcess", request: podWait("reads"), reply: &agentpb.WaitProcessResponse{}},
		{does: "exec what lasts", method: "ExecProcess", request: podExec("lasts", "/bin/sleep"), reply: &emptypb.Empty{}},
		{does: "kill it", method: "SignalProcess", request: kill("lasts"), reply: &emptypb.Empty{}},
		{does: "wait for it", method: "WaitProcess", request: podWait("lasts"), reply: &agentpb.WaitProcessResponse{Status: 137}},
		{does: "stats", method: "StatsContainer", request: &agentpb.StatsContainerRequest{ContainerId: podID}},
		{does: "pause", method: "PauseContainer", request: &agentpb.PauseContainerRequest{ContainerId: podID}, reply: &emptypb.Empty{}},
		{does: "resume", method: "ResumeContainer", request: &agentpb.ResumeContainerRequest{ContainerId: podID}, reply: &emptypb.Empty{}},
		{does: "resume what is not paused", method: "ResumeContainer", request: &agentpb.ResumeContainerRequest{ContainerId: podID}, code: codes.Internal, says: "not paused"},
		{does: "list the interfaces", method: "ListInterfaces", request: &agentpb.ListInterfacesRequest{}},
		{does: "kill the container", method: "SignalProcess", request: kill(""), reply: &emptypb.Empty{}},
		{does: "wait for it", method: "WaitProcess", request: podWait(""), reply: &agentpb.WaitProcessResponse{Status: 137}},
		{does: "wait for it again", method: "WaitProcess", request: podWait(""), code: codes.NotFound, says: "init process"},
		{does: "remove it", method: "RemoveContainer", request: &agentpb.RemoveContainerRequest{ContainerId: podID}, reply: &emptypb.Empty{}},
		{does: "stats of what was removed", method: "StatsContainer", request: &agentpb.StatsContainerRequest{ContainerId: podID}, code: codes.InvalidArgument, says: "invalid container id"},
	}
}

// plain is a text without the case and the spaces in which two versions of the agent differ.
func plain(text string) string { return strings.ToLower(strings.ReplaceAll(text, " ", "")) }

// play sends the steps one after the other and compares what comes back.
func play(t *testing.T, client *ttrpc.Client, steps []step) {
	t.Helper()
	for _, s := range steps {
		service, name := "grpc.AgentService", s.method
		if health, ok := strings.CutPrefix(s.method, "Health/"); ok {
			service, name = "grpc.Health", health
		}
		m, ok := agentproto.Lookup(service, name)
		if !ok {
			t.Fatalf("no method %s of %s", name, service)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		reply := m.Response.New().Interface()
		err := client.Call(ctx, m.Service, m.Name, s.request, reply)
		cancel()
		switch {
		case status.Code(err) != s.code:
			t.Errorf("%s: %s: got %v, want %v", s.does, s.method, err, s.code)
		case err != nil && !strings.Contains(plain(err.Error()), plain(s.says)):
			t.Errorf("%s: %s: got %q, want %q in it", s.does, s.method, err, s.says)
		case err == nil && s.reply != nil && !proto.Equal(reply, s.reply):
			t.Errorf("%s: %s: got {%v}, want {%v}", s.does, s.method, reply, s.reply)
		}
		if err != nil {
			t.Logf("%s: %v", s.does, err)
		} else {
			t.Logf("%s: {%.200v}", s.does, reply)
		}
	}
}

// The story that is played with a real agent (see TestInterop) has the same course with the fake one.
func TestPodWithTheFakeAgent(t *testing.T) {
	p := startProcess(t, setPolicyOnly)
	program := make([]byte, copyChunk+1)
	client := p.dial()
	defer client.Close()
	play(t, client, beginning())
	play(t, client, copyRootfs(program))
	play(t, client, middle())
	play(t, client, []step{{does: "end the sandbox", method: "DestroySandbox", request: &agentpb.DestroySandboxRequest{}, reply: &emptypb.Empty{}}})
	if _, err := os.Stat(p.path("agent.sock")); err != nil {
		t.Errorf("the agent's socket: %v", err)
	}
}
