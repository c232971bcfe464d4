// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"portcullis/agentproto/agentpb"
	"portcullis/rules"
)

const (
	gateDir     = "/run/portcullis"
	agentSocket = gateDir + "/agent.sock"
	agentTree   = "/run/kata-containers"
)

// realAgent is a kata-agent binary, started as a guest starts it.
type realAgent struct {
	t      testing.TB
	binary string
	config string
	cmd    *exec.Cmd
	ended  chan struct{} // closed when the process is gone
	output lockedBuffer  // of all its lives
}

// agentBinary is the agent to test with. The test changes /run and control groups, so it wants to be in namespaces that
// were made for it; .ci/interop sees to that.
func agentBinary(t testing.TB) string {
	t.Helper()
	binary := os.Getenv("KATA_AGENT")
	if binary == "" {
		t.Skip("KATA_AGENT does not name a kata-agent; `make interop KATA_AGENT=path` runs this test")
	}
	_, gateErr := os.Stat(gateDir)
	_, treeErr := os.Stat(agentTree)
	if os.Getuid() != 0 || os.Getppid() != 1 || !errors.Is(gateErr, os.ErrNotExist) || !errors.Is(treeErr, os.ErrNotExist) {
		t.Fatal("this test takes over /run: start it by `make interop KATA_AGENT=path`, which gives it namespaces of its own")
	}
	return binary
}

func newRealAgent(t testing.TB, binary, logLevel string) *realAgent {
	t.Helper()
	a := &realAgent{t: t, binary: binary, config: filepath.Join(t.TempDir(), "agent.toml")}
	text := fmt.Sprintf("server_addr = %q\nlog_level = %q\nguest_components_procs = \"none\"\n", "unix://"+agentSocket, logLevel)
	if err := os.WriteFile(a.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

// start removes the socket of the life before, as a guest's unit does, and returns when the agent listens.
func (a *realAgent) start() {
	a.t.Helper()
	if err := os.Remove(agentSocket); err != nil && !errors.Is(err, os.ErrNotExist) {
		a.t.Fatal(err)
	}
	a.cmd = exec.Command(a.binary, "--config", a.config)
	a.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "KATA_AGENT") })
	a.cmd.Stdout, a.cmd.Stderr = &a.output, &a.output
	a.cmd.WaitDelay = time.Second // a container may hold its output
	if err := a.cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	cmd, ended := a.cmd, make(chan struct{})
	a.ended = ended
	go func() { _ = cmd.Wait(); close(ended) }()
	a.t.Cleanup(a.kill)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if conn, err := net.Dial("unix", agentSocket); err == nil {
			conn.Close()
			return
		}
		select {
		case <-tick.C:
		case <-ended:
			a.t.Fatalf("the agent ended (%v) before it listened on %s", cmd.ProcessState, agentSocket)
		case <-ctx.Done():
			a.t.Fatalf("the agent does not listen on %s", agentSocket)
		}
	}
}

// kill ends the agent as SIGKILL does.
func (a *realAgent) kill() {
	_ = a.cmd.Process.Kill()
	<-a.ended
}

// startGate starts policyd as in a guest, except that hosts reach it on a unix socket.
func startGate(t *testing.T) *process {
	t.Helper()
	allowAll, err := rules.Default("allow-all")
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, dir: t.TempDir()}
	p.write("default.rego", allowAll)
	p.write("config.toml", fmt.Sprintf("[gate]\nlisten = [\"unix://%s\"]\n[policy]\ndefault = %q\n[binding]\nmode = \"off\"\ninitdata = \"off\"\n",
		p.path("gate.sock"), p.path("default.rego")))
	p.start()
	return p
}

// buildProgram builds the only program of the container.
func buildProgram(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", path, "./testdata/program")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the container's program: %v\n%s", err, out)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// TestInterop plays a pod through policyd in front of the agent that KATA_AGENT names.
func TestInterop(t *testing.T) {
	agent := newRealAgent(t, agentBinary(t), "debug")
	if version, err := exec.Command(agent.binary, "--version").CombinedOutput(); err == nil {
		t.Logf("agent: %s", version)
	}
	program := buildProgram(t)
	p := startGate(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("policyd printed:\n%s\nthe agent printed:\n%s", p.stderr.String(), agent.output.String())
		}
	})
	p.must("SetPolicy", &agentpb.SetPolicyRequest{Policy: storyPolicy})
	if err := p.call("GetGuestDetails", &agentpb.GuestDetailsRequest{}); status.Code(err) != codes.Unavailable {
		t.Fatalf("before the agent is there: got %v, want %v", err, codes.Unavailable)
	}
	agent.start()
	ours := witness(t)

	client := p.dial()
	defer client.Close()
	play(t, client, beginning())
	if _, err := os.Stat(agentTree + "/witness"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("CreateSandbox did not clear %s: %v", agentTree, err)
	}
	if got := list(t, gateDir); !slices.Equal(got, ours) {
		t.Errorf("%s held %q before CreateSandbox and %q after it", gateDir, ours, got)
	}
	play(t, client, copyRootfs(program))
	play(t, client, middle())
	if log := agent.output.String(); strings.Contains(log, "do_exec_process") {
		for exec, want := range map[string]bool{"allowed": true, "denied": false} {
			if got := strings.Contains(log, "do_exec_process cid: "+podID+" eid: "+exec); got != want {
				t.Errorf("the agent saw the exec %q: %v, want %v", exec, got, want)
			}
		}
	}
	if log := agent.output.String(); strings.Contains(log, storyPolicy[:20]) || strings.Contains(log, "/bin/refused") {
		t.Error("the agent saw SetPolicy or the exec that was refused")
	}
	restart(t, p, agent)
}

// witness leaves a file where the agent clears, and returns what policyd keeps beside the agent's socket.
func witness(t *testing.T) []string {
	t.Helper()
	if err := os.MkdirAll(agentTree, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(agentTree+"/witness", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return list(t, gateDir)
}

func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// restart kills the agent under a client that waits for it, starts it again, and ends the sandbox.
func restart(t *testing.T, p *process, agent *realAgent) {
	t.Helper()
	client := p.dial()
	defer client.Close()
	waited := make(chan error, 1)
	go func() { waited <- p.call("GetOOMEvent", &agentpb.GetOOMEventRequest{}) }()
	agent.awaitLog(waitLine, 1)
	agent.kill()
	if err := <-waited; status.Code(err) != codes.Unavailable {
		t.Errorf("waiting when the agent was killed: got %v, want %v", err, codes.Unavailable)
	}
	if err := p.callOn(client, "ListInterfaces", &agentpb.ListInterfacesRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("without an agent: got %v, want %v", err, codes.Unavailable)
	}
	agent.start()
	play(t, client, []step{
		{does: "use the connection from before", method: "ListInterfaces", request: &agentpb.ListInterfacesRequest{}},
		{does: "stats of what the agent has forgotten", method: "StatsContainer", request: &agentpb.StatsContainerRequest{ContainerId: podID}, code: codes.InvalidArgument, says: "invalid container id"},
		{does: "end the sandbox", method: "DestroySandbox", request: &agentpb.DestroySandboxRequest{}, reply: &emptypb.Empty{}},
	})
	select {
	case <-agent.ended:
	case <-time.After(20 * time.Second):
		t.Error("the agent runs on after DestroySandbox")
	}
}

// waitLine is in what the agent logs when it has got GetOOMEvent.
const waitLine = "get_oom_event"

func (a *realAgent) logged(text string) int { return strings.Count(a.output.String(), text) }

// awaitLog waits until the agent has logged a text that often. An agent that does not log gets two seconds.
func (a *realAgent) awaitLog(text string, times int) {
	a.t.Helper()
	deadline := time.After(2 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for a.logged(text) < times {
		select {
		case <-tick.C:
		case <-deadline:
			return
		}
	}
}
