// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/spf13/cobra"

	"portcullis/engine"
	"portcullis/engine/trace"
)

func newReplay() *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use:   "replay --policy F [--fresh] [FILE]",
		Short: "Judge recorded requests by a policy",
		Long: `Judge the requests of FILE, or of standard input, by a policy, in order: the state that one leaves is the next one's.
Prints a line for each, and at the end a summary. Where the record says what is to be decided, another decision is a mismatch.

FILE holds {"kind","request"[,"case","allowed"]} lines, a JSON array of those, or the debug log of policyd or of an agent
(/tmp/policy.txt, policy.jsonl). It may be longer than memory: one request is held at a time. A line that is none of these
ends the replay with its number; --skip-broken passes over such lines and counts them. How far a long dump is is printed to
standard error.

With --save-tests the requests are written to a file with the decisions of this policy, which replay then holds any other
policy to. With --split each request is written to a file of its own in a directory, {"input": ...}, which is what curl sends
to a server of OPA's REST API: POST /v1/data/agent_policy/<kind>. Both hold the workload's secrets, as the dump does.

Exit code 1: there were mismatches. 3: a line cannot be read, or no request is in a file that is not empty.`,
		Example: `  policyctl replay --policy pod.rego /tmp/policy.txt
  policyctl replay --policy pod.rego --save-tests pod.tests.jsonl /tmp/policy.txt
  policyctl replay --policy other.rego --denied pod.tests.jsonl
  policyctl replay --policy pod.rego --split requests /tmp/policy.txt`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := loadEngine(cmd.Context(), o.policy, engine.Options{})
			if err != nil {
				return err
			}
			defer e.Close()
			in, err := openInput(args, cmd.InOrStdin())
			if err != nil {
				return err
			}
			defer in.Close()
			return runReplay(cmd, o, e, in)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.policy, "policy", "", "policy `file`, full or compact form")
	flags.BoolVar(&o.fresh, "fresh", false, "judge each request from the initial state")
	flags.BoolVar(&o.denied, "denied", false, "print only requests that are denied, or decided otherwise than the record says")
	flags.BoolVar(&o.skip, "skip-broken", false, "pass over lines that cannot be read")
	flags.StringVar(&o.save, "save-tests", "", "write the requests with the decisions to this `file`")
	flags.StringVar(&o.split, "split", "", "write each request to a file in this `directory`")
	return cmd
}

type replayOptions struct {
	policy, save, split string
	fresh, skip, denied bool
}

func runReplay(cmd *cobra.Command, o replayOptions, e *engine.Engine, in io.Reader) error {
	r := replay{engine: e, options: o, out: cmd.OutOrStdout()}
	var files outputs
	if err := files.open(o); err != nil {
		return err
	}
	r.files = &files
	size := int64(0)
	if f, ok := in.(statter); ok {
		size = sizeOf(f)
	}
	progressTo := cmd.ErrOrStderr()
	if isTerminal(r.out) {
		progressTo = io.Discard // the lines themselves show how far it is
	}
	p := newProgress(progressTo, size)
	err := r.run(cmd.Context(), p.reader(in))
	p.done()
	return errors.Join(files.close(err == nil || errors.Is(err, errNo)), err)
}

// replay judges recorded requests.
type replay struct {
	engine  *engine.Engine
	options replayOptions
	files   *outputs
	out     io.Writer

	allowed, denied, mismatches, broken int
}

func (r *replay) run(ctx context.Context, in io.Reader) error {
	var skipped func(error) error
	if r.options.skip {
		skipped = func(err error) error {
			r.broken++
			_, err = fmt.Fprintln(r.out, "SKIP", engine.OneLine(err.Error(), 200))
			return err
		}
	}
	truncated := false
	if err := eachRecord(ctx, in, &recordHooks{broken: skipped, truncated: &truncated}, r.one); err != nil {
		return err
	}
	if truncated {
		fmt.Fprintln(r.out, "note: the last record is cut off and was left out")
	}
	if r.broken > 0 {
		fmt.Fprintf(r.out, "note: %d lines could not be read\n", r.broken)
	}
	fmt.Fprintf(r.out, "%d requests: %d allowed, %d denied, %d mismatches\n", r.allowed+r.denied, r.allowed, r.denied, r.mismatches)
	if r.mismatches > 0 {
		return errNo
	}
	return nil
}

func (r *replay) one(ctx context.Context, record trace.Record) error {
	if r.options.fresh {
		if err := r.engine.Activate(ctx, r.engine.Active(), engine.FreshState); err != nil {
			return err
		}
	}
	d, err := decide(ctx, r.engine, record)
	if err != nil {
		return err
	}
	word := "DENY"
	if d.allowed {
		word = "ALLOW"
		r.allowed++
	} else {
		r.denied++
	}
	mismatch := record.Allowed != nil && *record.Allowed != d.allowed
	if !r.options.denied || !d.allowed || mismatch {
		fmt.Fprintf(r.out, "%s %s%s\n", word, record.Kind, detail(record.Case, d.reason))
	}
	if mismatch {
		r.mismatches++
		fmt.Fprintf(r.out, "  MISMATCH: the record says allowed = %t\n", *record.Allowed)
	}
	return r.files.add(record, d.allowed)
}

// recordHooks are what a reader of records may want to know beside them. Nil
// fields are not called.
type recordHooks struct {
	broken    func(error) error // a line that cannot be read; nil: it is the end
	truncated *bool             // set when the last record was cut off
}

// errNoRequest ends a verb that was given something, but no request.
var errNoRequest = errors.New("no request among them")

// eachRecord reads the requests of a dump, one at a time. A dump that holds something but no request is an error: it is not one.
func eachRecord(ctx context.Context, in io.Reader, hooks *recordHooks, one func(context.Context, trace.Record) error) error {
	records := trace.NewReader(in)
	read, broken := 0, 0
	for {
		record, err := records.Next()
		var line *trace.LineError
		switch {
		case errors.Is(err, io.EOF):
			if hooks != nil && hooks.truncated != nil {
				*hooks.truncated = records.Truncated()
			}
			if others := records.PassedOver() + broken; read == 0 && others > 0 {
				return fmt.Errorf("read dump: %d lines or elements, and %w; see --help for the forms that are known", others, errNoRequest)
			}
			return nil
		case errors.As(err, &line) && hooks != nil && hooks.broken != nil:
			if err := hooks.broken(err); err != nil {
				return err
			}
			broken++
			continue
		case err != nil:
			return err
		}
		read++
		if err := one(ctx, record); err != nil {
			return err
		}
	}
}

// detail is the part of a line that not every record has.
func detail(name, reason string) string {
	s := ""
	if name != "" {
		s += " " + engine.OneLine(name, 200)
	}
	if reason != "" {
		s += ": " + reason
	}
	return s
}

// decision is what became of one recorded request.
type decision struct {
	allowed bool
	reason  string
}

// decide judges a recorded request; what it changes in the state is kept, as if the agent had carried it out.
func decide(ctx context.Context, e *engine.Engine, record trace.Record) (decision, error) {
	input, err := parseInput(record)
	if err != nil {
		return decision{}, err
	}
	v, err := e.Judge(ctx, engine.Request{
		EntryPoint: record.Kind,
		Input:      func(*engine.Policy) (ast.Value, error) { return input, nil },
	})
	if ctx.Err() != nil {
		return decision{}, ctx.Err()
	}
	if err != nil {
		return decision{reason: err.Error()}, nil
	}
	return decision{v.Allowed, v.Reason}, v.Commit()
}

func parseInput(record trace.Record) (ast.Value, error) {
	input, err := ast.ValueFromReader(bytes.NewReader(record.Request))
	if err != nil {
		return nil, fmt.Errorf("line %d: request of %s: %w", record.Line, record.Kind, err)
	}
	return input, nil
}
