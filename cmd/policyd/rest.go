// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"

	"github.com/coreos/go-systemd/v22/activation"

	"portcullis/engine/rest"
)

// serveREST starts to answer OPA's REST API if the configuration asks for it. What ends the serving goes to failed. The
// server it returns is always there to be shut down.
func (d *policyDaemon) serveREST(ctx context.Context, failed chan<- error) (*rest.Server, error) {
	s := rest.New(rest.Config{
		Policies: d.chain, Engine: d.engine, Default: d.first, ID: d.config.Policy.Default, // as OPA does, by the path
		Log: d.log, Trace: d.trace,
	})
	if d.config.Gate.REST == "" {
		return s, nil
	}
	l, err := d.restListener(ctx)
	if err != nil {
		return nil, err
	}
	go func() { failed <- s.Serve(l) }()
	d.log.Info("answering OPA's REST API", "address", l.Addr().String())
	return s, nil
}

// socketName is what policyd-rest.socket calls its socket (FileDescriptorName=).
const socketName = "rest"

// restListener is the socket that systemd holds for policyd, or one of its own. A socket of systemd's stays bound when policyd ends,
// so that no container can take its place and answer the agent; one that is not the configured address is an error.
func (d *policyDaemon) restListener(ctx context.Context) (net.Listener, error) {
	address := d.config.Gate.REST
	if fd := d.config.restFD; fd != 0 {
		l, err := heldPort(fd)
		if err != nil {
			return nil, fmt.Errorf("take the port that is held: %w", err)
		}
		return rest.Guard(l, d.log)
	}
	passed, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("take the sockets of systemd: %w", err)
	}
	if len(passed) == 0 {
		return rest.Listen(ctx, address, d.log)
	}
	want, err := rest.ParseAddress(address)
	if err != nil {
		return nil, err
	}
	if l := passed[socketName]; len(passed) == 1 && len(l) == 1 && l[0] != nil && l[0].Addr().String() == want.String() {
		return rest.Guard(l[0], d.log)
	}
	return nil, fmt.Errorf("take the sockets of systemd: want one that is called %s and listens on %s", socketName, want)
}

// journalDir is where the journal is kept; empty keeps it in memory.
func (c *config) journalDir() string {
	if c.stateless {
		return ""
	}
	return c.runDir()
}
