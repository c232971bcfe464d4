// SPDX-License-Identifier: Apache-2.0

// Policyd decides, inside a confidential pod VM, which requests of the host the kata-agent gets to see.
//
// # Synopsis
//
//	policyd [--config F] [--listen ADDR]... [--agent ADDR] [--rest HOST:PORT]
//	        [--default-policy F] [--debug-log F] [--log-level L]
//	policyd [--config F] --check-config
//	policyd --try DIR
//
// It listens where the agent used to, judges every request by the workload owner's Rego policy, and forwards what is allowed
// to the agent behind it. See docs/policyd.md for the configuration file.
//
// Called as opa it stands in for OPA beside an agent of the sidecar era: see docs/opa-drop-in.md.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// stdio are the streams of the process.
type stdio struct {
	out, err io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	code := program(os.Args[0])(ctx, os.Args[1:], stdio{os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}
