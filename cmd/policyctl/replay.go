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
	var policy string
	var fresh bool
	cmd := &cobra.Command{
		Use:   "replay --policy F [--fresh] [FILE]",
		Short: "Judge recorded requests by a policy",
		Long: `Judge the requests of FILE, or of standard input, by a policy, in order: the state that one leaves is the next one's.
Prints a line for each, and at the end a summary. Where the record says what is to be decided, another decision is a mismatch.

FILE holds {"kind","request"[,"case","allowed"]} lines, a JSON array of those, or the debug log of policyd or of an agent
(/tmp/policy.txt, policy.jsonl).

Exit code 1: there were mismatches.`,
		Example: `  policyctl replay --policy pod.rego /tmp/policy.txt
  policyctl replay --policy pod.rego --fresh requests.jsonl`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := loadEngine(cmd.Context(), policy, engine.Options{})
			if err != nil {
				return err
			}
			defer e.Close()
			in, err := openInput(args, cmd.InOrStdin())
			if err != nil {
				return err
			}
			defer in.Close()
			r := replay{engine: e, fresh: fresh, out: cmd.OutOrStdout()}
			return r.run(cmd.Context(), in)
		},
	}
	cmd.Flags().StringVar(&policy, "policy", "", "policy `file`, full or compact form")
	cmd.Flags().BoolVar(&fresh, "fresh", false, "judge each request from the initial state")
	return cmd
}

// replay judges recorded requests.
type replay struct {
	engine *engine.Engine
	fresh  bool
	out    io.Writer

	allowed, denied, mismatches int
}

func (r *replay) run(ctx context.Context, in io.Reader) error {
	records := trace.NewReader(in)
	for {
		record, err := records.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := r.one(ctx, record); err != nil {
			return err
		}
	}
	if records.Truncated() {
		fmt.Fprintln(r.out, "note: the last record is cut off and was left out")
	}
	fmt.Fprintf(r.out, "%d requests: %d allowed, %d denied, %d mismatches\n", r.allowed+r.denied, r.allowed, r.denied, r.mismatches)
	if r.mismatches > 0 {
		return errNo
	}
	return nil
}

func (r *replay) one(ctx context.Context, record trace.Record) error {
	if r.fresh {
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
	fmt.Fprintf(r.out, "%s %s%s\n", word, record.Kind, detail(record.Case, d.reason))
	if record.Allowed != nil && *record.Allowed != d.allowed {
		r.mismatches++
		fmt.Fprintf(r.out, "  MISMATCH: the record says allowed = %t\n", *record.Allowed)
	}
	return nil
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
