// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"portcullis/engine"
	"portcullis/engine/replay"
	"portcullis/engine/trace"
)

func newReplay() *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use:   "replay --policy F [--fresh] [FILE...]",
		Short: "Judge recorded requests by a policy",
		Long: `Judge the requests of each FILE, or of standard input, by a policy, in order: the state that one leaves is the next one's.
Prints a line for each, and at the end a summary. Where the record says what was decided, another decision is a mismatch;
mismatches are named first. Each FILE begins in the state of a guest that has just started, and so does what follows a second
CreateSandbox that the record says was allowed: a guest has one sandbox, so the FILE holds what several guests were asked.

FILE holds {"kind","request"[,"case","allowed","agent"]} lines, a JSON array of those, or the decision log of policyd or of an
agent (/tmp/policy.txt, policy.jsonl). It may be longer than memory: one request is held at a time. A line that is none of
these ends the replay with its number; --skip-broken passes over such lines and counts them. How far a long recording is is
printed to standard error.

What the agent refused has not happened, and does not change the policy's state. policyd's log says what the agent answered
and what a copied file held. Where a recording does not, and a decision depends on it, the line says UNKNOWN, and what is missing.

With --save-tests the requests are written to a file with what was decided then, or, where the recording does not say that, with
the decisions of this policy; replay then holds any other policy to it. With --split each request is written to a file of its
own in a directory, {"input": ...}, which is what curl sends to a server of OPA's REST API: POST /v1/data/agent_policy/KIND.
Both hold the workload's secrets, as the recording does.

Exit code 1: there were mismatches. 3: a line cannot be read, or no request is in a file that is not empty.`,
		Example: `  policyctl replay --policy pod.rego /tmp/policy.txt
  policyctl replay --policy pod.rego --save-tests pod.tests.jsonl /tmp/policy.txt
  policyctl replay --policy other.rego --denied pod.tests.jsonl
  policyctl replay --policy pod.rego --json /tmp/policy.txt | jq 'select(.decision == "deny")'
  policyctl replay --policy pod.rego --split requests /tmp/policy.txt`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneStdinBeside(o.policy, args); err != nil {
				return err
			}
			e, err := loadEngine(cmd.Context(), o.policy, cmd.InOrStdin(), engine.Options{})
			if err != nil {
				return err
			}
			defer e.Close()
			return runReplay(cmd, o, e, args)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.policy, "policy", "", "`file` with the policy, full or compact form, or with a manifest that has it in its annotation; \"-\" is standard input")
	flags.BoolVar(&o.fresh, "fresh", false, "judge each request from the initial state")
	flags.BoolVar(&o.denied, "denied", false, "print only requests that are denied or unknown, or decided otherwise than the record says")
	flags.BoolVar(&o.skip, "skip-broken", false, "pass over lines that cannot be read")
	flags.BoolVar(&o.json, "json", false, "print a JSON object for each request and one for the summary")
	flags.StringVar(&o.save, "save-tests", "", "write the requests with what was decided to this `file`")
	flags.StringVar(&o.split, "split", "", "write each request to a file in this `directory`")
	return cmd
}

type replayOptions struct {
	policy, save, split       string
	fresh, skip, denied, json bool
}

func runReplay(cmd *cobra.Command, o replayOptions, e *engine.Engine, paths []string) error {
	r := replayer{session: replay.New(e), options: o, out: &replayOutput{out: cmd.OutOrStdout(), json: o.json}}
	var files outputs
	if err := files.open(o); err != nil {
		return err
	}
	r.files = &files
	err := r.all(cmd, paths)
	return errors.Join(files.close(err == nil || errors.Is(err, errNo)), err)
}

// all replays one file after the other.
func (r *replayer) all(cmd *cobra.Command, paths []string) error {
	for i, args := range eachFile(paths) {
		in, err := openInput(args, cmd.InOrStdin())
		if err != nil {
			return err
		}
		if len(paths) > 1 {
			r.out.file(args[0])
		}
		if i > 0 {
			err = r.session.Reset(cmd.Context())
		}
		if err == nil {
			err = r.file(cmd, in)
		}
		if err = errors.Join(err, in.Close()); err != nil {
			return errors.Join(r.out.flush(), err)
		}
	}
	if err := r.out.summary(); err != nil {
		return err
	}
	if r.out.counts.Mismatches > 0 {
		return errNo
	}
	return nil
}

// eachFile gives the arguments of a verb one at a time; no arguments are one input, standard input.
func eachFile(paths []string) [][]string {
	if len(paths) == 0 {
		return [][]string{nil}
	}
	var each [][]string
	for i := range paths {
		each = append(each, paths[i:i+1])
	}
	return each
}

func (r *replayer) file(cmd *cobra.Command, in io.Reader) error {
	size := int64(0)
	if f, ok := in.(statter); ok {
		size = sizeOf(f)
	}
	progressTo := cmd.ErrOrStderr()
	if isTerminal(r.out.out) {
		progressTo = io.Discard // the lines themselves show how far it is
	}
	p := newProgress(progressTo, size)
	defer p.done()
	return r.run(cmd.Context(), p.reader(in))
}

// replayer judges recorded requests.
type replayer struct {
	session *replay.Session
	options replayOptions
	files   *outputs
	out     *replayOutput
}

func (r *replayer) run(ctx context.Context, in io.Reader) error {
	var skipped func(error) error
	if r.options.skip {
		skipped = func(err error) error {
			r.out.skip(err)
			return nil
		}
	}
	truncated := false
	if err := eachRecord(ctx, in, &recordHooks{broken: skipped, truncated: &truncated, observations: true}, r.one); err != nil {
		return err
	}
	if truncated {
		r.out.note("the last record is cut off and was left out")
	}
	return nil
}

func (r *replayer) one(ctx context.Context, record trace.Record) error {
	if r.options.fresh {
		if err := r.session.Reset(ctx); err != nil {
			return err
		}
	}
	d, err := r.session.Judge(ctx, record)
	if err != nil {
		return err
	}
	if d.Booted {
		r.out.note(fmt.Sprintf("line %d: another sandbox, which was allowed: from here on it is another guest", record.Line))
	}
	if !record.Observed {
		r.out.add(record, d, r.options.denied)
	}
	return r.files.add(record, d)
}
