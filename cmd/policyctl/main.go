// SPDX-License-Identifier: Apache-2.0

// Policyctl replays, explains, measures and checks the policies of confidential pods, outside the guest and in it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"portcullis/cmd/interrupt"
	"portcullis/cmd/manual"
	"portcullis/internal/version"
)

// stdio are the streams of the process.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// streams are those that a command has.
func streams(cmd *cobra.Command) stdio {
	return stdio{cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()}
}

func main() {
	interrupt.Exit(func(ctx context.Context) int {
		return run(ctx, pluginArguments(os.Args[0], os.Args[1:]), stdio{os.Stdin, os.Stdout, os.Stderr})
	})
}

// Exit codes, the same for every verb.
const (
	exitOK    = 0 // done
	exitNo    = 1 // a check said no
	exitUsage = 2
	exitFail  = 3 // could not check
)

// exitError carries an exit code. A nil Err prints nothing: the output has said it.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// errNo ends a verb whose output has said that a check failed.
var errNo = &exitError{code: exitNo}

// usageError is a mistake in the command line.
func usageError(err error) error { return &exitError{exitUsage, err} }

// run is the whole program but for the process around it.
func run(ctx context.Context, args []string, io stdio) int {
	root := newRoot(io)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code := exitFail
	var exit *exitError
	if errors.As(err, &exit) {
		code = exit.code
	}
	if exit == nil || exit.err != nil {
		fmt.Fprintln(io.err, "policyctl:", err)
	}
	return code
}

// newRoot assembles the verbs.
func newRoot(io stdio) *cobra.Command {
	root := &cobra.Command{
		Use:   "policyctl",
		Short: "Replay, explain and verify the policies of confidential pods",
		Long: `policyctl works on the policies that decide, inside a confidential pod VM, which requests of the host its agent
carries out. It decides with the engine that policyd runs in the guest.

Exit codes: 0 done, 1 a check said no, 2 wrong usage, 3 could not check, 130 interrupted.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version.Text(),
		Args:          knownVerb,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(io.in)
	root.SetOut(io.out)
	root.SetErr(io.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError(fmt.Errorf("%w; see %s --help", err, cmd.CommandPath()))
	})
	root.AddCommand(newDemo(), newReplay(), newExplain(), newReport(), newDiff(), newSimulate(), newSend(), newSetPolicy(), newInput(), newBench())
	root.AddCommand(newCheck(), newAdmit(), newProve(), newFragment(), newKubectl(), newStatement(), newPush(), newPull())
	root.AddCommand(newDigest(), newStatus(), newMetrics(), newVerify(), manual.NewCommand())
	root.SetVersionTemplate("policyctl {{.Version}}")
	root.SuggestionsMinimumDistance = 2
	holdArguments(root)
	return root
}
