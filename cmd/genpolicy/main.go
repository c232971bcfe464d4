// SPDX-License-Identifier: Apache-2.0

// genpolicy makes the policies of Kubernetes manifests and writes them back as
// annotations.
//
// Synopsis:
//
//	genpolicy [flags] [-y FILE|DIR]
//	genpolicy explain FILE
//
// Exit codes: 0 done, 1 a manifest was refused, 2 wrong usage, 3 something could
// not be read or written.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr}))
}
