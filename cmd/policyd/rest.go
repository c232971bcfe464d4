package main

import (
	"context"
	"path/filepath"

	"portcullis/engine/rest"
)

// serveREST starts to answer OPA's REST API if the configuration asks for it. What ends the serving goes to failed. The
// server it returns is always there to be shut down.
func (d *policyDaemon) serveREST(ctx context.Context, failed chan<- error) (*rest.Server, error) {
	s := rest.New(rest.Config{
		Policies: d.chain, Engine: d.engine, Default: d.first, ID: policyID(d.config.Policy.Default),
		Log: d.log, Trace: d.trace,
	})
	if d.config.Gate.REST == "" {
		return s, nil
	}
	l, err := rest.Listen(ctx, d.config.Gate.REST, d.log)
	if err != nil {
		return nil, err
	}
	go func() { failed <- s.Serve(l) }()
	d.log.Info("answering OPA's REST API", "address", l.Addr().String())
	return s, nil
}

// policyID names the policy that comes from a file before a client does: as OPA does, by the path.
func policyID(file string) string {
	if file == "" {
		return ""
	}
	return filepath.ToSlash(file)
}

// journalDir is where the journal is kept; empty keeps it in memory.
func (c *config) journalDir() string {
	if c.forgetful {
		return ""
	}
	return c.runDir()
}
