// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine"
	"portcullis/engine/binding"
	"portcullis/engine/gate"
	"portcullis/engine/journal"
	"portcullis/engine/jsonvalue"
	"portcullis/engine/trace"
	"portcullis/measure"
	"portcullis/measure/record"
	"portcullis/rules"
)

const (
	exitOK    = 0
	exitUsage = 2
	exitFail  = 3
)

// shutdownGrace is how long requests in flight may take after SIGTERM.
const shutdownGrace = 20 * time.Second

// run is the whole program but for the process around it.
func run(ctx context.Context, args []string, std stdio) int {
	o, err := parseFlags(args)
	switch {
	case errors.Is(err, errHelp):
		fmt.Fprint(std.out, usage)
		return exitOK
	case err != nil:
		fmt.Fprintln(std.err, "policyd:", err)
		return exitUsage
	case o.version:
		fmt.Fprint(std.out, versionText())
		return exitOK
	}
	c, err := o.configuration()
	if err == nil {
		err = tightenByKernel(&c)
	}
	if err == nil && o.checkConfig {
		err = checkConfig(ctx, o, c, std.out)
	}
	if err != nil {
		fmt.Fprintln(std.err, "policyd:", err)
		return exitUsage
	}
	if o.checkConfig {
		return exitOK
	}
	logger := slog.New(slog.NewTextHandler(std.err, &slog.HandlerOptions{Level: c.level()}))
	if err := serve(ctx, c, thisGuest(), logger); err != nil {
		logger.Error("policyd stops", "error", err)
		return exitFail
	}
	return exitOK
}

func tightenByKernel(c *config) error {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return fmt.Errorf("read kernel command line: %w", err)
	}
	return c.tighten(string(cmdline))
}

// serve runs the daemon until ctx ends.
func serve(ctx context.Context, c config, g guest, logger *slog.Logger) error {
	limitMemory()
	d, err := newDaemon(ctx, c, g, logger)
	if err != nil {
		return err
	}
	defer d.close()
	listeners, err := d.listen(ctx)
	if err != nil {
		return err
	}
	defer d.serveStatus(ctx)()
	defer d.serveRecord(ctx)()
	failed := make(chan error, len(listeners)+1)
	web, err := d.serveREST(ctx, failed)
	if err != nil {
		return err
	}
	for _, l := range listeners {
		go func() { failed <- d.gate.Serve(context.WithoutCancel(ctx), l) }()
		logger.Info("listening", "address", l.Addr().Network()+":"+l.Addr().String())
	}
	notify(logger, daemon.SdNotifyReady)
	if c.isSidecar() {
		debug.SetGCPercent(gcPercentOfSidecar)
	} else {
		go d.warm(context.WithoutCancel(ctx))
	}
	select {
	case err = <-failed:
	case <-ctx.Done():
		err = nil
	}
	notify(logger, daemon.SdNotifyStopping)
	d.sayGoodbye()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	return errors.Join(err, web.Shutdown(grace), d.gate.Shutdown(grace))
}

// The collector's settings, see runtime/debug.SetGCPercent. What is compiled at start stays for good: collecting often meanwhile
// packs it densely, where garbage between would keep 2 MB from ever being used again. What passes through is not allocated again,
// so there is little to collect afterwards, and the heap may be three quarters larger than what lives. The limit is above what
// that needs: only a host that makes the gate hold all it may gets near it. A sidecar, which forwards nothing, needs less room.
const (
	gcPercentAtStart   = 50
	gcPercent          = 75
	gcPercentOfSidecar = 200
	memoryLimit        = 24 << 20
)

// sayGoodbye is the last line of an orderly end.
func (d *policyDaemon) sayGoodbye() {
	allowed, denied := uint64(0), uint64(0)
	for _, c := range d.gate.Counts() {
		allowed, denied = allowed+c.Allowed, denied+c.Denied
	}
	d.log.Info("policyd ends", "allowed", allowed, "denied", denied)
}

func limitMemory() {
	debug.SetGCPercent(gcPercentAtStart)
	debug.SetMemoryLimit(memoryLimit)
}

func notify(logger *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		logger.Warn("systemd was not notified", "error", err)
	}
}

// policyDaemon is policyd's parts, wired.
type policyDaemon struct {
	config   config
	guest    guest
	log      *slog.Logger
	compiler *engine.Compiler
	engine   *engine.Engine
	first    *engine.Policy // decides until another is set
	chain    *binding.Chain
	gate     *gate.Gate
	trace    *trace.Log

	book      *record.Book       // nil: the pod's life is not recorded
	recordPCR uint32             // that it is recorded in; 0: none
	recordKey ed25519.PrivateKey // that vouches for it where there is no register
	closers   []io.Closer
}

// warm compiles the held rules while the guest is still waiting for its policy. A sidecar, whose agents rarely name them, does it
// when one does. Then it rehearses, unless a policy has come meanwhile: its requests would wait for the processor.
func (d *policyDaemon) warm(ctx context.Context) {
	if err := d.compiler.Warm(); err != nil {
		d.log.Error("held rules do not compile, policies in compact form are refused", "error", err)
	}
	debug.SetGCPercent(gcPercent)
	giveBack(d.log)
	if d.engine.Active() != d.first {
		return
	}
	began := time.Now()
	decided, err := rehearse(ctx, d.compiler)
	if err != nil {
		d.log.Warn("nothing was rehearsed, the first decision takes longer", "error", err)
		return
	}
	d.log.Debug("rehearsed", "decisions", decided, "took", time.Since(began))
}

// rehearse decides once what the guest is going to be asked. It returns how many requests that were.
func rehearse(ctx context.Context, compiler *engine.Compiler) (int, error) {
	r, err := rules.NewRehearsal()
	if err != nil {
		return 0, err
	}
	policy, err := compiler.Compile(ctx, r.Policy)
	if err != nil {
		return 0, err
	}
	var requests []engine.Request
	for _, q := range r.Requests {
		read := func(*engine.Policy) (ast.Value, error) { return jsonvalue.Read(q.Input) }
		requests = append(requests, engine.Request{EntryPoint: q.EntryPoint, Input: read})
	}
	return len(requests), engine.Rehearse(ctx, policy, requests)
}

// giveBack returns to the system what only a compilation needed.
func giveBack(logger *slog.Logger) {
	debug.FreeOSMemory()
	if err := leaveStart(); err != nil {
		logger.Warn("pages that only the start needed stay in memory", "error", err)
	}
}

// newDaemon wires the parts and brings the binding into its first state. What cannot be bound is denied, with the reason in
// every denial; what cannot be configured is an error.
func newDaemon(ctx context.Context, c config, g guest, logger *slog.Logger) (*policyDaemon, error) {
	d := &policyDaemon{config: c, guest: g, log: logger}
	compiler, err := engine.NewCompiler(engine.CompilerOptions{
		HeldRules: rules.Held(), LateReasons: true, AfterReasons: func() { giveBack(logger) },
	})
	if err != nil {
		return nil, err
	}
	first, err := defaultPolicy(ctx, compiler, c.Policy.Default)
	if err != nil {
		return nil, err
	}
	bootID, err := measure.BootID()
	if err != nil {
		return nil, err
	}
	j, err := journal.Open(c.journalDir(), bootID)
	if err != nil {
		return nil, err
	}
	agent, err := gate.ParseAddress(c.Gate.Agent)
	if err != nil {
		return nil, err
	}
	if d.trace, err = openTrace(c.Policy.DebugLog, logger); err != nil {
		return nil, err
	}
	d.compiler = compiler
	d.engine, d.first = engine.New(first, engine.Options{}), first
	bound := bind(ctx, c, g, bootID, logger)
	d.openRecord(ctx, bound)
	chain := bound.out
	chain.Engine, chain.Compiler, chain.Default, chain.Journal = d.engine, compiler, first, j
	d.chain = binding.New(chain)
	if err := d.chain.Start(ctx, isUp(ctx, agent)); err != nil {
		logger.Error("requests are denied", "error", err)
	}
	var facts gate.Record
	if d.book != nil {
		facts = d.book
		if err := d.book.Settle(ctx); err != nil {
			logger.Error("launch record is behind", "error", err)
		}
	}
	d.gate = gate.New(gate.Config{
		Policies: d.chain, Agent: agent.Dial, VsockPeers: c.Gate.VsockPeers,
		Protected: d.ownPaths(), Allow: c.Gate.Allow, Log: logger, Trace: d.trace, Record: facts,
	})
	return d, nil
}

// ownPaths are the files and sockets of this process that are not where they usually are.
func (d *policyDaemon) ownPaths() []string {
	paths := []string{d.config.Policy.DebugLog, d.config.Log.Events, d.config.Measure.TCG2}
	for _, s := range append([]string{d.config.Gate.Agent}, d.config.Gate.Listen...) {
		if a, err := gate.ParseAddress(s); err == nil {
			paths = append(paths, a.Path)
		}
	}
	if exe, err := os.Executable(); err == nil {
		paths = append(paths, exe)
	}
	return paths
}

// isUp reports whether an agent answers at a.
func isUp(ctx context.Context, a gate.Address) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := a.Dial(ctx)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

func (d *policyDaemon) listen(ctx context.Context) (listeners []net.Listener, err error) {
	for _, s := range d.config.Gate.Listen {
		l, err := d.listenOn(ctx, s)
		if err != nil {
			for _, open := range listeners {
				open.Close()
			}
			return nil, err
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

func (d *policyDaemon) listenOn(ctx context.Context, address string) (net.Listener, error) {
	a, err := gate.ParseAddress(address)
	if err != nil {
		return nil, err
	}
	if !a.TLS {
		return a.Listen(ctx)
	}
	files, err := d.config.Gate.TLS.files()
	if err != nil {
		return nil, err
	}
	return a.ListenTLS(ctx, files)
}

func (d *policyDaemon) close() {
	d.engine.Close()
	for _, c := range d.closers {
		c.Close()
	}
	if d.trace != nil {
		if n := d.trace.Dropped(); n > 0 {
			d.log.Warn("decisions are missing in the decision log", "dropped", n)
		}
		if err := d.trace.Close(); err != nil {
			d.log.Error("decision log", "error", err)
		}
	}
}

// openTrace opens the decision log, visibly: it holds what the workload keeps secret.
func openTrace(path string, logger *slog.Logger) (*trace.Log, error) {
	if path == "" {
		return nil, nil
	}
	l, err := trace.Open(path, trace.Options{})
	if err != nil {
		return nil, err
	}
	logger.Warn("DEBUG LOG IS ON: requests with their secrets are written to a file", "file", path)
	return l, nil
}
