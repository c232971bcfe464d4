// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto"
	"portcullis/agentproto/agentpb"
	"portcullis/engine"
	"portcullis/engine/binding"
	"portcullis/engine/gate"
	"portcullis/engine/journal"
	"portcullis/engine/trace"
	"portcullis/internal/agenttest"
)

// rig is a gate on a unix socket with a fake agent behind it.
type rig struct {
	t       testing.TB
	agent   *agenttest.Agent
	gate    *gate.Gate
	chain   *binding.Chain
	dir     string
	address gate.Address // of the gate
	socket  gate.Address // of the agent
}

// rigOptions change what a rig is made of.
type rigOptions struct {
	policy  string // default policy, which decides everything
	limits  gate.Limits
	allow   []string // gate.allow
	noAgent bool
	dir     string // of journal and sockets; empty: a new one
	journal bool   // keep the journal on disk
	trace   *trace.Log
	record  gate.Record
	// between stands between the gate and the policies; nil: nothing does.
	between func(gate.Policies) gate.Policies
	// programs run in the fake agent's containers, besides cat.
	programs map[string]agenttest.Program
}

var allowAll = `package agent_policy

import rego.v1

` + allRules

// newRig starts a gate; it is stopped when the test ends.
func newRig(t testing.TB, o rigOptions) *rig {
	t.Helper()
	if o.dir == "" {
		o.dir = t.TempDir()
	}
	r := &rig{
		t: t, agent: agenttest.New(agenttest.Options{Programs: o.programs}), dir: o.dir,
		address: gate.Address{Path: filepath.Join(o.dir, "gate.sock")},
		socket:  gate.Address{Path: filepath.Join(o.dir, "agent.sock")},
	}
	if !o.noAgent {
		r.startAgent()
	}
	r.start(o)
	return r
}

func (r *rig) startAgent() {
	r.t.Helper()
	if err := r.agent.Start(r.socket.Path); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(r.agent.Kill)
}

// start wires the parts as policyd does.
func (r *rig) start(o rigOptions) {
	r.t.Helper()
	ctx := context.Background()
	compiler, err := engine.NewCompiler(engine.CompilerOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	first, err := compiler.Compile(ctx, []byte(o.policy))
	if err != nil {
		r.t.Fatal(err)
	}
	dir := ""
	if o.journal {
		dir = filepath.Join(o.dir, "run")
	}
	j, err := journal.Open(dir, "test-boot")
	if err != nil {
		r.t.Fatal(err)
	}
	e := engine.New(first, engine.Options{})
	r.chain = binding.New(binding.Config{
		Engine: e, Compiler: compiler, Default: first, Journal: j, Open: true, Alg: "sha256",
		Log: slog.New(slog.DiscardHandler),
	})
	_ = r.chain.Start(ctx, false)
	policies := gate.Policies(r.chain)
	if o.between != nil {
		policies = o.between(policies)
	}
	r.gate = gate.New(gate.Config{Policies: policies, Agent: r.socket.Dial, Limits: o.limits, Allow: o.allow, Trace: o.trace, Record: o.record})
	l, err := r.address.Listen(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- r.gate.Serve(ctx, l) }()
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_ = r.gate.Shutdown(ctx) // requests that block on purpose are cut off
		if err := <-served; err != nil {
			r.t.Errorf("serve: %v", err)
		}
		e.Close()
	})
}

// client connects to the gate.
func (r *rig) client() *client { return dialClient(r.t, r.address) }

// client calls any method of the agent's API.
type client struct {
	t testing.TB
	*ttrpc.Client
}

func dialClient(t testing.TB, a gate.Address) *client {
	t.Helper()
	conn, err := a.Dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return newClient(t, conn)
}

func newClient(t testing.TB, conn net.Conn) *client {
	c := &client{t: t, Client: ttrpc.NewClient(conn)}
	t.Cleanup(func() { c.Close() })
	return c
}

// do calls a method of grpc.AgentService.
func (c *client) do(ctx context.Context, name string, req proto.Message) (proto.Message, error) {
	m, ok := agentproto.Lookup("grpc.AgentService", name)
	if !ok {
		c.t.Fatalf("no method %s", name)
	}
	resp := m.Response.New().Interface()
	return resp, c.Call(ctx, m.Service, m.Name, req, resp)
}

// must calls a method that is to succeed.
func (c *client) must(name string, req proto.Message) proto.Message {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	resp, err := c.do(ctx, name, req)
	if err != nil {
		c.t.Fatalf("%s: %v", name, err)
	}
	return resp
}

// fails calls a method that is to fail with a code, and returns the message.
func (c *client) fails(code codes.Code, name string, req proto.Message) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err := c.do(ctx, name, req)
	if status.Code(err) != code {
		c.t.Fatalf("%s: got %v, want code %s", name, err, code)
	}
	return status.Convert(err).Message()
}

// createContainer is a request that the fake agent carries out.
func createContainer(id string, args ...string) *agentpb.CreateContainerRequest {
	return &agentpb.CreateContainerRequest{
		ContainerId: id,
		OCI: &agentpb.Spec{
			Version: "1.1.0",
			Process: &agentpb.Process{Args: args, Env: []string{"PATH=/bin"}, Cwd: "/"},
			Root:    &agentpb.Root{Path: "/run/kata-containers/" + id + "/rootfs"},
		},
	}
}

// sandbox makes the agent ready for containers.
func sandbox() *agentpb.CreateSandboxRequest {
	return &agentpb.CreateSandboxRequest{SandboxId: "sandbox", Hostname: "pod"}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func removeSocket(t testing.TB, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}
