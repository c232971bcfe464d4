// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto"
	"portcullis/engine"
	"portcullis/engine/binding"
	"portcullis/engine/gate"
	"portcullis/engine/journal"
	"portcullis/internal/agenttest"
)

//go:embed demo/policy.rego
var demoPolicy string

func newDemo() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Play a pod's life through a real gate, decisions shown",
		Long: `Start the gate on a unix socket with a fake agent behind it, set a policy, and play a whole pod over ttrpc as a host would:
sandbox, containers, a probe, files, logs, and what a hostile host would try in between. Each line is one request: what was
decided, how long the answer took, and why.

Nothing is bound to hardware here, and no container really runs: the agent is a fake that keeps a believable state.

Exit code 1: a decision was not the expected one.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDemo(cmd.Context(), cmd.OutOrStdout()) },
	}
}

func runDemo(ctx context.Context, out io.Writer) error {
	log.L.Logger.SetOutput(io.Discard) // ttrpc's own log
	dir, err := os.MkdirTemp("", "portcullis-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d := &demo{agent: agenttest.New(agenttest.Options{Programs: demoPrograms}), out: out}
	defer d.agent.Kill()
	socket := gate.Address{Path: filepath.Join(dir, "agent.sock")}
	if err := d.agent.Start(socket.Path); err != nil {
		return err
	}
	address := gate.Address{Path: filepath.Join(dir, "gate.sock")}
	stop, err := serveDemo(ctx, address, socket)
	if err != nil {
		return err
	}
	defer stop()
	conn, err := address.Dial(ctx)
	if err != nil {
		return err
	}
	d.client = ttrpc.NewClient(conn)
	defer d.client.Close()
	return d.play(ctx)
}

// serveDemo starts a gate as policyd wires it, closed until a policy is set.
func serveDemo(ctx context.Context, listen, agent gate.Address) (stop func(), err error) {
	compiler, err := engine.NewCompiler(engine.CompilerOptions{})
	if err != nil {
		return nil, err
	}
	first, err := compiler.Compile(ctx, []byte("package agent_policy\n\ndefault SetPolicyRequest := true\n"))
	if err != nil {
		return nil, err
	}
	j, err := journal.Open("", "demo") // in memory: agent and gate end together
	if err != nil {
		return nil, err
	}
	e := engine.New(first, engine.Options{})
	chain := binding.New(binding.Config{Engine: e, Compiler: compiler, Default: first, Journal: j, Alg: "sha256"})
	g := gate.New(gate.Config{Policies: chain, Agent: agent.Dial})
	l, err := listen.Listen(ctx)
	if err != nil {
		return nil, err
	}
	go g.Serve(ctx, l) //nolint:errcheck // it ends with Shutdown
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = g.Shutdown(ctx) // whatever is cut off is a demo's
		e.Close()
	}, nil
}

// demo plays requests and prints what became of them.
type demo struct {
	agent  *agenttest.Agent
	client *ttrpc.Client
	out    io.Writer

	allowed, denied, wrong int
}

// step is one request of the demo's story.
type step struct {
	chapter string // printed before it, if not empty
	what    string
	method  string
	request proto.Message
	deny    bool // what is expected
}

func (d *demo) play(ctx context.Context) error {
	d.row("REQUEST", "WHAT THE HOST WANTS", "VERDICT", "TIME", "WHY")
	for _, s := range demoSteps() {
		if s.chapter != "" {
			fmt.Fprintf(d.out, "\n# %s\n", s.chapter)
		}
		if err := d.step(ctx, s); err != nil {
			return err
		}
	}
	fmt.Fprintf(d.out, "\n%d requests: %d allowed, %d denied, %d not as expected\n", d.allowed+d.denied, d.allowed, d.denied, d.wrong)
	if d.wrong > 0 {
		return errNo
	}
	return nil
}

// row prints one line of the table.
func (d *demo) row(request, what, verdict, took, why string) {
	line := fmt.Sprintf("%-16s %-38s %-7s %8s  %s", request, what, verdict, took, why)
	fmt.Fprintln(d.out, strings.TrimRight(line, " "))
}

func (d *demo) step(ctx context.Context, s step) error {
	m, ok := agentproto.Lookup("grpc.AgentService", s.method)
	if !ok {
		return fmt.Errorf("the agent's API has no method %s", s.method)
	}
	if s.method == "WaitProcess" { // the host waits; here the process ends first
		if err := d.agent.Exit(agentproto.ContainerID(s.request), "", 0); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	start := time.Now()
	err := d.client.Call(ctx, m.Service, m.Name, s.request, m.Response.New().Interface())
	took := time.Since(start)

	word, why := "ALLOW", ""
	switch {
	case err == nil:
		d.allowed++
	case status.Code(err) == codes.PermissionDenied, s.method == "SetPolicy":
		d.denied++
		word, why = "DENY", shorten(status.Convert(err).Message())
	default:
		return fmt.Errorf("%s: %w", s.what, err)
	}
	if s.deny != (err != nil) {
		d.wrong++
		why += "  <-- not as expected"
	}
	d.row(s.method, s.what, word, fmt.Sprintf("%.2f ms", took.Seconds()*1000), why)
	return nil
}
