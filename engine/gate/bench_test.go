// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/open-policy-agent/opa/v1/ast"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto"
	"portcullis/agentproto/agentpb"
	"portcullis/engine"
	"portcullis/engine/gate"
	"portcullis/internal/agenttest"
	"portcullis/internal/opatest"
)

// benchRules decide ExecProcess as policies do: by the container, the command, the user and the environment.
var benchRules = strings.Replace(allowAll, "default ExecProcessRequest := true", `
commands := {"app": [["/bin/probe", "--live"], ["/bin/sh", "-c", "exit 0"]]}

allowed_env := {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=pod", "MODE=production"}

ExecProcessRequest if {
	input.string_user == null
	process := input.process
	process.Args in commands[input.container_id]
	process.Cwd == "/"
	process.Terminal == false
	process.NoNewPrivileges
	process.User.UID == 1000
	process.Capabilities == null
	others := {variable | some variable in process.Env} - allowed_env
	every variable in others {
		regex.match("^[A-Z0-9_]+_SERVICE_(HOST|PORT)=[0-9.]+$", variable)
	}
}
`, 1)

// commandRules decide ExecProcess by the container and the command alone, as hand-written policies do.
var commandRules = strings.Replace(allowAll, "default ExecProcessRequest := true", `
commands := {"app": [["/bin/probe", "--live"], ["/bin/sh", "-c", "exit 0"]]}

ExecProcessRequest if {
	input.process.Args in commands[input.container_id]
	input.process.Terminal == false
}
`, 1)

func benchExec() *agentpb.ExecProcessRequest {
	return &agentpb.ExecProcessRequest{ContainerId: "app", ExecId: "probe", Process: &agentpb.Process{
		Args: []string{"/bin/probe", "--live"}, Cwd: "/", NoNewPrivileges: true, User: &agentpb.User{UID: 1000},
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=pod", "MODE=production",
			"KUBERNETES_SERVICE_HOST=10.0.0.1", "KUBERNETES_SERVICE_PORT=443"},
	}}
}

// collector sets the garbage collector as policyd does. What it is compared with runs in the same process.
func collector(b *testing.B) {
	b.Cleanup(func(percent int) func() { return func() { debug.SetGCPercent(percent) } }(debug.SetGCPercent(400)))
}

// peers are the ways to the agent that are compared: directly, through a Go ttrpc proxy that decides nothing, through the gate.
func peers(b *testing.B) (*rig, map[string]*client) {
	collector(b)
	r := newRig(b, rigOptions{policy: benchRules, programs: map[string]agenttest.Program{
		"sink": agenttest.Discard,
		"source": func(_ context.Context, p agenttest.Process) int32 {
			for chunk := make([]byte, 1<<20); ; {
				if _, err := p.Stdout.Write(chunk); err != nil {
					return 0
				}
			}
		},
		"probe": agenttest.Exit(0),
	}})
	proxy := gate.Address{Path: filepath.Join(r.dir, "proxy.sock")}
	bareProxy(b, proxy, r.socket)
	c := r.client()
	c.must("CreateSandbox", sandbox())
	for id, program := range map[string]string{"app": "pause", "sink": "sink", "source": "source"} {
		c.must("CreateContainer", createContainer(id, program))
		c.must("StartContainer", &agentpb.StartContainerRequest{ContainerId: id})
	}
	return r, map[string]*client{"1-direct": dialClient(b, r.socket), "2-proxy": dialClient(b, proxy), "3-gate": c}
}

// bareProxy passes every method on, with the library and the descriptors that the gate uses, and nothing else.
func bareProxy(b *testing.B, listen, agent gate.Address) {
	server, err := ttrpc.NewServer()
	if err != nil {
		b.Fatal(err)
	}
	backend := dialClient(b, agent)
	methods := map[string]ttrpc.Method{}
	for _, m := range agentproto.Methods() {
		methods[m.Name] = func(ctx context.Context, unmarshal func(any) error) (any, error) {
			req, resp := m.Request.New().Interface(), m.Response.New().Interface()
			if err := unmarshal(req); err != nil {
				return nil, err
			}
			return resp, backend.Call(ctx, m.Service, m.Name, req, resp)
		}
	}
	server.Register("grpc.AgentService", methods)
	l, err := listen.Listen(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	go server.Serve(context.Background(), l) //nolint:errcheck // it ends with Close
	b.Cleanup(func() { server.Close() })
}

func compare(b *testing.B, method string, bytes int64, request func(i int) proto.Message) {
	_, clients := peers(b)
	for _, name := range []string{"1-direct", "2-proxy", "3-gate"} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(bytes)
			for i := 0; b.Loop(); i++ {
				if _, err := clients[name].do(context.Background(), method, request(i)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRepeatedStatsContainer(b *testing.B) {
	req := &agentpb.StatsContainerRequest{ContainerId: "app"}
	compare(b, "StatsContainer", 0, func(int) proto.Message { return req })
}

// Each request has an exec id of its own, so none comes from the cache.
func BenchmarkUncachedExecProcess(b *testing.B) {
	n := 0
	compare(b, "ExecProcess", 0, func(int) proto.Message {
		n++
		req := benchExec()
		req.ExecId = fmt.Sprintf("probe-%d", n)
		return req
	})
}

func BenchmarkWriteStdin512KiB(b *testing.B) {
	req := &agentpb.WriteStreamRequest{ContainerId: "sink", Data: make([]byte, 512<<10)}
	compare(b, "WriteStdin", 512<<10, func(int) proto.Message { return req })
}

func BenchmarkReadStdout512KiB(b *testing.B) {
	req := &agentpb.ReadStreamRequest{ContainerId: "source", Len: 512 << 10}
	compare(b, "ReadStdout", 512<<10, func(int) proto.Message { return req })
}

// BenchmarkDecision compares one decision on ExecProcess: a real OPA server over HTTP, as the sidecar was asked, and the engine
// in process, from the request to the verdict. The policies check the command alone, and everything about the process.
func BenchmarkDecision(b *testing.B) {
	collector(b)
	for name, policy := range map[string]string{"command": commandRules, "process": benchRules} {
		b.Run(name+"/1-opa-sidecar", func(b *testing.B) { benchSidecar(b, policy) })
		b.Run(name+"/2-engine", func(b *testing.B) { benchEngine(b, policy, -1) })
		b.Run(name+"/3-engine-cached", func(b *testing.B) { benchEngine(b, policy, 0) })
	}
}

func benchSidecar(b *testing.B, policy string) {
	url := startOPA(b, policy) + "/v1/data/agent_policy/ExecProcessRequest"
	input, err := agentproto.Input(benchExec())
	if err != nil {
		b.Fatal(err)
	}
	plain, err := ast.JSON(input)
	if err != nil {
		b.Fatal(err)
	}
	times := make([]time.Duration, 0, 1<<16)
	for b.Loop() {
		start := time.Now()
		body, err := json.Marshal(map[string]any{"input": plain})
		if err != nil {
			b.Fatal(err)
		}
		ask(b, url, body)
		times = append(times, time.Since(start))
	}
	median(b, times)
}

func benchEngine(b *testing.B, policy string, cache int) {
	e := newEngine(b, policy, cache)
	req := benchExec()
	times := make([]time.Duration, 0, 1<<20)
	for b.Loop() {
		start := time.Now()
		v, err := gate.Decide(context.Background(), e, req)
		if err != nil || !v.Allowed {
			b.Fatal(v, err)
		}
		times = append(times, time.Since(start))
	}
	median(b, times)
}

// median reports the 50th percentile, in the unit of the benchmark's own figure.
func median(b *testing.B, times []time.Duration) {
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Nanoseconds()), "p50-ns")
}

func newEngine(b *testing.B, text string, cache int) *engine.Engine {
	compiler, err := engine.NewCompiler(engine.CompilerOptions{})
	if err != nil {
		b.Fatal(err)
	}
	p, err := compiler.Compile(context.Background(), []byte(text))
	if err != nil {
		b.Fatal(err)
	}
	e := engine.New(p, engine.Options{Cache: cache})
	b.Cleanup(e.Close)
	return e
}

// startOPA runs the real OPA server and returns its address.
func startOPA(b *testing.B, policy string) string {
	file := filepath.Join(b.TempDir(), "policy.rego")
	if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	cmd := exec.Command(opatest.Binary(b), "run", "--server", "--disable-telemetry", "--addr", address, "--log-level", "error", file)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + address + "/health")
		if err == nil {
			resp.Body.Close()
			return "http://" + address
		}
		if time.Now().After(deadline) {
			b.Fatal(err)
		}
	}
}

func ask(b *testing.B, url string, body []byte) {
	resp, err := http.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	answer, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || !strings.Contains(string(answer), `"result":true`) {
		b.Fatalf("%s %v", answer, err)
	}
}
