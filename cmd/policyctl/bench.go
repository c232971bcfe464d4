// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/spf13/cobra"

	"portcullis/engine"
	"portcullis/engine/replay"
	"portcullis/engine/trace"
)

func newBench() *cobra.Command {
	var policy string
	var count int
	cmd := &cobra.Command{
		Use:   "bench --policy F [FILE]",
		Short: "Measure how long decisions take, per kind of request",
		Long: `Judge each request of FILE, or of standard input, many times in the state it was recorded in, and print how long a decision
takes: the least, the median and the 99th percentile, for each kind of request. The decision cache is off.`,
		Example: `  policyctl bench --policy pod.rego requests.jsonl`,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if count < 1 {
				return usageError(errors.New("--count must be at least 1"))
			}
			if err := oneStdinBeside(policy, args); err != nil {
				return err
			}
			start := time.Now()
			e, err := loadEngine(cmd.Context(), policy, cmd.InOrStdin(), engine.Options{Cache: -1})
			if err != nil {
				return err
			}
			defer e.Close()
			b := bench{engine: e, count: count, loaded: time.Since(start), times: map[string]*samples{}}
			in, err := openInput(args, cmd.InOrStdin())
			if err != nil {
				return err
			}
			defer in.Close()
			if err := b.run(cmd.Context(), in); err != nil {
				return err
			}
			return b.print(cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&policy, "policy", "", "`file` with the policy, full or compact form, or with a manifest that has it in its annotation; \"-\" is standard input")
	cmd.Flags().IntVar(&count, "count", 200, "how often each request is judged")
	return cmd
}

// bench times decisions.
type bench struct {
	engine *engine.Engine
	count  int
	loaded time.Duration
	times  map[string]*samples // by kind of request
}

// samples are the times of one kind of request.
type samples struct {
	first time.Duration // of the first decision, with nothing warm
	all   []time.Duration
}

func (b *bench) run(ctx context.Context, in io.Reader) error {
	session := replay.New(b.engine)
	return eachRecord(ctx, in, &recordHooks{observations: true}, func(ctx context.Context, record trace.Record) error {
		if !record.Observed {
			if err := b.one(ctx, record); err != nil {
				return err
			}
		}
		_, err := session.Judge(ctx, record) // leaves the state that the next one was recorded in
		return err
	})
}

func (b *bench) one(ctx context.Context, record trace.Record) error {
	input, err := replay.Input(record)
	if err != nil {
		return err
	}
	s := b.times[record.Kind]
	if s == nil {
		s = &samples{}
		b.times[record.Kind] = s
	}
	for range b.count {
		start := time.Now()
		v, err := b.engine.Judge(ctx, engine.Request{
			EntryPoint: record.Kind,
			Input:      func(*engine.Policy) (ast.Value, error) { return input, nil },
		})
		took := time.Since(start)
		if err != nil {
			return fmt.Errorf("%s: %w", record.Kind, err)
		}
		v.Discard()
		if len(s.all) == 0 {
			s.first = took
		}
		s.all = append(s.all, took)
	}
	return nil
}

func (b *bench) print(out io.Writer) error {
	fmt.Fprintf(out, "policy compiled in %s; decision cache off\n\n", b.loaded.Round(10*time.Microsecond))
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "request\tcount\tfirst\tmin\tp50\tp99\t")
	for _, kind := range slices.Sorted(maps.Keys(b.times)) {
		s := b.times[kind]
		slices.Sort(s.all)
		at := func(share float64) time.Duration { return s.all[int(share*float64(len(s.all)-1))] }
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\t\n", kind, len(s.all), micros(s.first), micros(at(0)), micros(at(0.5)), micros(at(0.99)))
	}
	return table.Flush()
}

func micros(d time.Duration) string { return fmt.Sprintf("%.1f µs", float64(d.Nanoseconds())/1000) }
