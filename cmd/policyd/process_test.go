// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto"
	"portcullis/agentproto/agentpb"
	"portcullis/internal/agenttest"
	"portcullis/internal/policydtest"
)

// built are the directories of what was built for all tests, until they have run.
var built []string

// builtPolicyd is policyd as it is installed, built once for all tests.
var builtPolicyd = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "policyd-test-")
	if err != nil {
		return "", err
	}
	built = append(built, dir)
	path := filepath.Join(dir, "policyd")
	return path, policydtest.Build(path)
})

// buildPolicyd returns the path of the binary.
func buildPolicyd(t testing.TB) string {
	t.Helper()
	path, err := builtPolicyd()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// process is a policyd in a directory of its own, with a fake agent beside it.
type process struct {
	t      testing.TB
	dir    string
	agent  *agenttest.Agent
	cmd    *exec.Cmd
	stderr lockedBuffer
}

// lockedBuffer is what a running process prints.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startProcess starts policyd first and the agent after it, as a guest does.
func startProcess(t testing.TB, defaultPolicy string) *process {
	t.Helper()
	p := &process{t: t, dir: t.TempDir(), agent: agenttest.New(agenttest.Options{})}
	p.write("default.rego", defaultPolicy)
	p.write("config.toml", fmt.Sprintf("[gate]\nlisten = [\"unix://%s\"]\nagent = \"unix://%s\"\n[policy]\ndefault = %q\n[binding]\ninitdata = \"off\"\n[log]\nevents = %q\n",
		p.path("gate.sock"), p.path("agent.sock"), p.path("default.rego"), p.path("run/measure.jsonseq")))
	p.start()
	if err := p.agent.Start(p.path("agent.sock")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.agent.Kill)
	return p
}

func (p *process) path(name string) string { return filepath.Join(p.dir, name) }

func (p *process) write(name, text string) {
	p.t.Helper()
	if err := os.WriteFile(p.path(name), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// start runs policyd until it notifies systemd that it is ready.
func (p *process) start() {
	p.t.Helper()
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: p.path("notify.sock"), Net: "unixgram"})
	if err != nil {
		p.t.Fatal(err)
	}
	defer os.Remove(p.path("notify.sock"))
	defer notify.Close()
	p.cmd = exec.Command(buildPolicyd(p.t), "--config", p.path("config.toml"))
	p.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+p.path("notify.sock"))
	p.cmd.Stderr = &p.stderr
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(p.kill)
	if err := notify.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		p.t.Fatal(err)
	}
	message := make([]byte, 64)
	n, err := notify.Read(message)
	if err != nil || string(message[:n]) != "READY=1" {
		p.t.Fatalf("policyd is not ready: %q, %v\n%s", message[:n], err, p.stderr.String())
	}
}

// kill ends policyd as SIGKILL does.
func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

// dial connects to the gate.
func (p *process) dial() *ttrpc.Client {
	p.t.Helper()
	conn, err := net.Dial("unix", p.path("gate.sock"))
	if err != nil {
		p.t.Fatal(err)
	}
	return ttrpc.NewClient(conn)
}

// call sends one request on a connection of its own.
func (p *process) call(name string, req proto.Message) error {
	p.t.Helper()
	client := p.dial()
	defer client.Close()
	return p.callOn(client, name, req)
}

func (p *process) callOn(client *ttrpc.Client, name string, req proto.Message) error {
	p.t.Helper()
	m, ok := agentproto.Lookup("grpc.AgentService", name)
	if !ok {
		p.t.Fatalf("no method %s", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return client.Call(ctx, m.Service, m.Name, req, m.Response.New().Interface())
}

func (p *process) must(name string, req proto.Message) {
	p.t.Helper()
	if err := p.call(name, req); err != nil {
		p.t.Fatalf("%s: %v\n%s", name, err, p.stderr.String())
	}
}

// memory reads a figure of /proc/PID/status, in bytes: VmRSS or VmHWM, the most that was resident.
func (p *process) memory(field string) int {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	found := regexp.MustCompile(field + `:\s+(\d+) kB`).FindSubmatch(text)
	if found == nil {
		p.t.Fatalf("no %s in\n%s", field, text)
	}
	kb, err := strconv.Atoi(string(found[1]))
	if err != nil {
		p.t.Fatal(err)
	}
	return kb << 10
}

const setPolicyOnly = "package agent_policy\n\ndefault SetPolicyRequest := true\n"

// onePod lets one container run at a time, whatever its id.
const onePod = `package agent_policy

import rego.v1

default CreateSandboxRequest := true

default WriteStreamRequest := false

default WaitProcessRequest := true

CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/running", "value": input.container_id}]} if {
	not data.pstate.running
}

RemoveContainerRequest := {"allowed": true, "ops": [{"op": "remove", "path": "/pstate/running"}]} if {
	data.pstate.running == input.container_id
}
`

func container(id string) *agentpb.CreateContainerRequest {
	return &agentpb.CreateContainerRequest{ContainerId: id, OCI: &agentpb.Spec{
		Version: "1.1.0",
		Process: &agentpb.Process{Args: []string{"/pause"}, Cwd: "/"},
		Root:    &agentpb.Root{Path: "/run/kata-containers/" + id + "/rootfs"},
	}}
}

func TestKilledAndRestartedItKnowsWhatRuns(t *testing.T) {
	p := startProcess(t, setPolicyOnly)
	p.must("SetPolicy", &agentpb.SetPolicyRequest{Policy: onePod})
	p.must("CreateSandbox", &agentpb.CreateSandboxRequest{SandboxId: "pod"})
	p.must("CreateContainer", container("first"))
	p.kill()
	p.start()
	p.must("SetPolicy", &agentpb.SetPolicyRequest{Policy: onePod})
	if err := p.call("CreateContainer", container("second")); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a second container beside the one that runs: %v", err)
	}
	p.must("RemoveContainer", &agentpb.RemoveContainerRequest{ContainerId: "first"})
	p.must("CreateContainer", container("second"))
}

func TestKilledInTheMiddleOfCreateContainer(t *testing.T) {
	p := startProcess(t, setPolicyOnly)
	p.must("SetPolicy", &agentpb.SetPolicyRequest{Policy: onePod})
	p.must("CreateSandbox", &agentpb.CreateSandboxRequest{SandboxId: "pod"})
	release := p.agent.Block("CreateContainer")
	failed := make(chan error, 1)
	go func() { failed <- p.call("CreateContainer", container("first")) }()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := p.agent.Await(ctx, "CreateContainer", 1); err != nil {
		t.Fatal(err)
	}
	p.kill()
	if err := <-failed; err == nil {
		t.Error("the request was answered")
	}
	release()
	p.start()
	for _, id := range []string{"first", "second"} { // it may run, and its id is burnt
		if err := p.call("CreateContainer", container(id)); status.Code(err) != codes.PermissionDenied {
			t.Errorf("create %s: %v", id, err)
		}
	}
	if err := p.call("RemoveContainer", &agentpb.RemoveContainerRequest{ContainerId: "first"}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("remove what may not be there: %v", err)
	}
}

func TestRestartedWithoutItsJournalItDeniesAll(t *testing.T) {
	p := startProcess(t, setPolicyOnly)
	p.must("SetPolicy", &agentpb.SetPolicyRequest{Policy: onePod})
	p.must("CreateSandbox", &agentpb.CreateSandboxRequest{SandboxId: "pod"})
	p.kill()
	if err := os.RemoveAll(p.path("run")); err != nil {
		t.Fatal(err)
	}
	p.start()
	for _, err := range []error{
		p.call("SetPolicy", &agentpb.SetPolicyRequest{Policy: onePod}),
		p.call("CreateContainer", container("first")),
	} {
		if err == nil || !strings.Contains(err.Error(), "state-lost") {
			t.Errorf("got %v, want state-lost", err)
		}
	}
	p.must("DestroySandbox", &agentpb.DestroySandboxRequest{})
}

// Sixty-four of the largest requests at once: each is answered, and they are never all in memory.
func TestLargestRequestsAtOnceStayWithinMemory(t *testing.T) {
	p := startProcess(t, setPolicyOnly)
	p.must("SetPolicy", &agentpb.SetPolicyRequest{Policy: onePod})
	data := make([]byte, 4<<20-256)
	var all sync.WaitGroup
	var client *ttrpc.Client
	for i := range 64 {
		if i%8 == 0 {
			client = p.dial()
			defer client.Close()
		}
		client := client
		all.Go(func() {
			err := p.callOn(client, "WriteStdin", &agentpb.WriteStreamRequest{ContainerId: "a", Data: data})
			if code := status.Code(err); code != codes.PermissionDenied && code != codes.ResourceExhausted {
				t.Errorf("got %v", err)
			}
		})
	}
	all.Wait()
	peak := p.memory("VmHWM")
	t.Logf("at most %.1f MiB were resident", float64(peak)/(1<<20))
	if peak > maxPeak {
		t.Errorf("%d bytes were resident, at most %d are allowed", peak, maxPeak)
	}
	p.must("CreateSandbox", &agentpb.CreateSandboxRequest{SandboxId: "pod"})
}

func TestTerminatedItStopsWithSuccess(t *testing.T) {
	p := startProcess(t, setPolicyOnly)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, p.stderr.String())
	}
}

func TestListenAddressInUseIsOneClearLine(t *testing.T) {
	p := startProcess(t, setPolicyOnly)
	cmd := exec.Command(buildPolicyd(t), "--config", p.path("config.toml"))
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != exitFail {
		t.Errorf("exit: %v", err)
	}
	if !strings.Contains(string(out), "listen on unix://"+p.path("gate.sock")+": address already in use") {
		t.Errorf("output %s", out)
	}
}

// Ready is the time from exec to the notification, with the built-in start-up work done.
func BenchmarkReady(b *testing.B) {
	p := startProcess(b, setPolicyOnly)
	p.must("SetPolicy", &agentpb.SetPolicyRequest{Policy: onePod})
	for b.Loop() {
		p.kill()
		if err := os.RemoveAll(p.path("run")); err != nil {
			b.Fatal(err)
		}
		p.start()
	}
	b.ReportMetric(float64(p.memory("VmRSS"))/(1<<20), "MiB-resident")
}
