// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto"
	"portcullis/agentproto/agentpb"
	"portcullis/internal/agenttest"
)

// Programs that this test binary is under another first argument, so that each has a process of its own.
const (
	agentProgram = "serve-fake-agent" // SOCKET
	proxyProgram = "serve-byte-proxy" // SOCKET AGENT
)

// serviceTimes are what the real agent takes, as measured with 4.1.0.
var serviceTimes = map[string]time.Duration{"StatsContainer": 850 * time.Microsecond, "ExecProcess": 6900 * time.Microsecond}

// serveProgram is the process of a benchmark's agent or proxy.
func serveProgram(args []string) int {
	var err error
	switch args[0] {
	case agentProgram:
		source := func(_ context.Context, p agenttest.Process) int32 {
			for chunk := make([]byte, 1<<20); ; {
				if _, err := p.Stdout.Write(chunk); err != nil {
					return 0
				}
			}
		}
		agent := agenttest.New(agenttest.Options{MaxRequests: 1,
			Log:      func(r agenttest.Request) { time.Sleep(serviceTimes[r.Method]) },
			Programs: map[string]agenttest.Program{"sink": agenttest.Discard, "source": source, "probe": agenttest.Exit(0)}})
		err = agent.ListenAndServe(context.Background(), args[1])
	case hostileProgram:
		return beHostile(args[1])
	case proxyProgram:
		err = serveBytes(args[1], args[2])
	}
	fmt.Fprintln(os.Stderr, err)
	return exitFail
}

// serveBytes passes bytes on both ways, and knows nothing of them.
func serveBytes(listen, agent string) error {
	l, err := net.Listen("unix", listen)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		back, err := net.Dial("unix", agent)
		if err != nil {
			return err
		}
		copyBytes := func(to, from net.Conn) {
			_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 64<<10))
			to.Close()
		}
		go copyBytes(back, conn)
		go copyBytes(conn, back)
	}
}

// helper starts this binary as a program, and waits for its socket.
func helper(b testing.TB, socket string, args ...string) {
	b.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("%v does not listen", args)
		}
	}
}

// speedPolicy decides each of the requests that are measured.
const speedPolicy = `package agent_policy

import rego.v1

default CreateSandboxRequest := true
default CreateContainerRequest := true
default StartContainerRequest := true
default WriteStreamRequest := true
default ReadStreamRequest := true
default StatsContainerRequest := true

CopyFileRequest if {
	startswith(input.path, "/run/kata-containers/shared/containers/")
	input.file_type == "Regular"
}

commands := {"sink": [["/probe", "--live"]]}

ExecProcessRequest if {
	input.process.Args in commands[input.container_id]
	input.process.Cwd == "/"
	input.process.Terminal == false
	every variable in input.process.Env { regex.match("^[A-Z0-9_]+=", variable) }
}
`

// BenchmarkDaemon measures requests directly, through a proxy of bytes and through policyd, each in a process of its own. They
// take turns, so that what else runs on the machine meets all of them. The agent is a fake one, or the real one of `make interop`.
func BenchmarkDaemon(b *testing.B) {
	p := startProcess(b, setPolicyOnly)
	p.agent.Kill()
	if err := os.Remove(p.path("agent.sock")); err != nil {
		b.Fatal(err)
	}
	real := os.Getenv("KATA_AGENT") != ""
	if real {
		startRealAgent(b, p.path("agent.sock"))
	} else {
		helper(b, p.path("agent.sock"), agentProgram, p.path("agent.sock"))
	}
	helper(b, p.path("proxy.sock"), proxyProgram, p.path("proxy.sock"), p.path("agent.sock"))
	p.must("SetPolicy", &agentpb.SetPolicyRequest{Policy: speedPolicy})
	p.must("CreateSandbox", &agentpb.CreateSandboxRequest{SandboxId: "pod"})
	if real {
		writeRoots(b, "sink", "source")
	}
	for _, id := range []string{"sink", "source"} {
		p.must("CreateContainer", benchContainer(id))
		p.must("StartContainer", &agentpb.StartContainerRequest{ContainerId: id})
	}
	n := 0
	for _, c := range []struct {
		name, method string
		bytes        int64
		request      func() proto.Message
	}{
		{"StatsContainer", "StatsContainer", 0, func() proto.Message { return &agentpb.StatsContainerRequest{ContainerId: "sink"} }},
		{"ExecProcess-not-cached", "ExecProcess", 0, func() proto.Message {
			n++
			return &agentpb.ExecProcessRequest{ContainerId: "sink", ExecId: fmt.Sprintf("probe-%d", n), Process: &agentpb.Process{
				Args: []string{"/probe", "--live"}, Cwd: "/", User: &agentpb.User{}, Capabilities: &agentpb.LinuxCapabilities{}, Env: []string{"PATH=/bin", "KUBERNETES_SERVICE_HOST=10.0.0.1"}}}
		}},
		{"WriteStdin-512KiB", "WriteStdin", 512 << 10, func() proto.Message {
			return &agentpb.WriteStreamRequest{ContainerId: "sink", Data: make([]byte, 512<<10)}
		}},
		{"ReadStdout-64KiB", "ReadStdout", 64 << 10, func() proto.Message { return &agentpb.ReadStreamRequest{ContainerId: "source", Len: 64 << 10} }},
		{"CopyFile-3MiB", "CopyFile", 3 << 20, func() proto.Message {
			return &agentpb.CopyFileRequest{Path: "/run/kata-containers/shared/containers/f", FileMode: 0o100644, FileSize: 3 << 20, Data: make([]byte, 3<<20)}
		}},
	} {
		b.Run(c.name, func(b *testing.B) { compareWays(b, p, c.method, c.bytes, c.request) })
	}
	b.Logf("policyd: %.1f MB resident, %.1f MB at most", float64(p.memory("VmRSS"))/1e6, float64(p.memory("VmHWM"))/1e6)
}

// compareWays reports medians, and each way's part of the direct one's speed.
func compareWays(b *testing.B, p *process, method string, bytes int64, request func() proto.Message) {
	ways := []string{"agent.sock", "proxy.sock", "gate.sock"}
	m, _ := agentproto.Lookup("grpc.AgentService", method)
	times := make([][]time.Duration, len(ways))
	clients := make([]*ttrpc.Client, len(ways))
	for i, way := range ways {
		conn, err := net.Dial("unix", p.path(way))
		if err != nil {
			b.Fatal(err)
		}
		clients[i] = ttrpc.NewClient(conn)
		defer clients[i].Close()
	}
	for b.Loop() {
		for i, client := range clients {
			for range 10 {
				req, resp := request(), m.Response.New().Interface()
				start := time.Now()
				if err := client.Call(context.Background(), m.Service, m.Name, req, resp); err != nil {
					b.Fatal(err)
				}
				times[i] = append(times[i], time.Since(start))
			}
		}
	}
	var medians [3]float64
	for i := range times {
		slices.Sort(times[i])
		medians[i] = float64(times[i][len(times[i])/2].Microseconds())
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(medians[0], "direct-µs")
	b.ReportMetric(medians[1], "proxy-µs")
	b.ReportMetric(medians[2], "gate-µs")
	b.ReportMetric(medians[0]/medians[1], "proxy-of-direct")
	b.ReportMetric(medians[0]/medians[2], "gate-of-direct")
	if bytes > 0 {
		b.ReportMetric(float64(bytes)/medians[0], "direct-MB/s")
	}
}
