// SPDX-License-Identifier: Apache-2.0

// genpolicy makes the policies of Kubernetes manifests and writes them back as annotations.
//
// Synopsis:
//
//	genpolicy [flags] [FILE|DIR]...
//	genpolicy explain FILE
//
// Exit codes: 0 done, 1 a manifest was refused, 2 wrong usage, 3 something could not be read or written, 130 interrupted.
package main

import (
	"context"
	"os"

	"portcullis/cmd/interrupt"
)

func main() {
	interrupt.Exit(func(ctx context.Context) int {
		return run(ctx, os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr})
	})
}
