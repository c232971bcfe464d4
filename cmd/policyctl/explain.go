// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"portcullis/engine"
	"portcullis/engine/trace"
	"portcullis/rules/explain"
)

func newExplain() *cobra.Command {
	o := explainOptions{color: "auto"}
	cmd := &cobra.Command{
		Use:   "explain --policy F [FILE]",
		Short: "Say why requests are denied, and what to change",
		Long: `Judge the requests of FILE, or of standard input, in order, and explain each denial in at most three lines: the container of
the policy that the request is nearest to, the first check that failed, where in the request, what it got and what the policy
wants, and what to change in the manifest or the settings. FILE has the formats that replay reads.

Under a policy from another tool, the check is the rule whose expression failed for that container, found by following one
evaluation with prints on; where in the request it looked is found by comparing the request with the policy's data.

A first line names the containers whose image the policy does not bind: one named by a tag may change unseen. Values of
variables and credentials in options are hidden unless --show-secrets is given.

Exit code 0 whether or not requests are denied; replay tells that.`,
		Example: `  policyctl explain --policy pod.rego /tmp/policy.txt
  policyctl explain --policy pod.rego --line 12 --all requests.jsonl
  policyctl explain --policy pod.rego --json requests.jsonl | jq .findings[0]`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := openInput(args, cmd.InOrStdin())
			if err != nil {
				return err
			}
			defer in.Close()
			return runExplain(cmd.Context(), o, in, cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.policy, "policy", "", "policy `file`, full or compact form")
	flags.BoolVar(&o.json, "json", false, "one JSON object for each denial")
	flags.BoolVar(&o.secrets, "show-secrets", false, "show values of variables and credentials")
	flags.BoolVarP(&o.all, "all", "v", false, "every check with its result, every finding, every print")
	flags.StringVar(&o.color, "color", "auto", "colour the text: auto, always or never")
	flags.StringVar(&o.name, "case", "", "explain only the requests of this case")
	flags.IntVar(&o.line, "line", 0, "explain only the request on this line")
	completeWords(cmd, "color", "auto", "always", "never")
	return cmd
}

type explainOptions struct {
	policy, color, name string
	line                int
	json, secrets, all  bool
}

func (o explainOptions) selects(r trace.Record) bool {
	return (o.name == "" || o.name == r.Case) && (o.line == 0 || o.line == r.Line)
}

// nothing says why no request was there to be explained.
func (o explainOptions) nothing() error {
	switch {
	case o.name != "":
		return fmt.Errorf("there is no request of the case %q", o.name)
	case o.line != 0:
		return fmt.Errorf("there is no request on line %d", o.line)
	}
	return errors.New("there is no request to explain")
}

func runExplain(ctx context.Context, o explainOptions, in io.Reader, out io.Writer) error {
	color, err := wantsColor(o.color, out)
	if err != nil {
		return err
	}
	x, err := newExplainer(ctx, o.policy)
	if err != nil {
		return err
	}
	defer x.engine.Close()
	if err := x.open(ctx, out, o.json); err != nil {
		return err
	}
	e := explaining{options: o, explainer: x, out: out, style: explain.Style{Color: color, All: o.all}}
	if err := eachRecord(ctx, in, nil, e.one); err != nil {
		return err
	}
	switch {
	case e.selected == 0:
		return usageError(e.options.nothing())
	case e.denied == 0 && !o.json:
		fmt.Fprintf(out, "%d requests, none denied\n", e.selected)
	}
	return nil
}

// explaining explains the requests of one input.
type explaining struct {
	options          explainOptions
	explainer        *explainer
	style            explain.Style
	out              io.Writer
	selected, denied int
}

func (e *explaining) one(ctx context.Context, record trace.Record) error {
	d, x, err := e.explainer.decide(ctx, record, e.options.selects(record))
	if err != nil || !e.options.selects(record) {
		return err
	}
	e.selected++
	if d.allowed {
		return nil
	}
	e.denied++
	if !e.options.secrets {
		x.Hide()
	}
	if e.options.json {
		enc := json.NewEncoder(e.out)
		enc.SetEscapeHTML(false)
		return enc.Encode(struct {
			Line int    `json:"line"`
			Case string `json:"case,omitempty"`
			*explain.Explanation
		}{record.Line, record.Case, x})
	}
	return x.Write(e.out, record.Kind+detail(record.Case, "")+fmt.Sprintf(" (line %d)", record.Line), e.style)
}

// explainer judges requests and explains those that are denied.
type explainer struct {
	engine *engine.Engine
	why    *explain.Explainer
}

func newExplainer(ctx context.Context, path string) (*explainer, error) {
	p, err := loadPolicy(ctx, path)
	if err != nil {
		return nil, err
	}
	why, err := explain.New(p.Text())
	if err != nil {
		return nil, err
	}
	return &explainer{engine: engine.New(p, engine.Options{}), why: why}, nil
}

// open says first what no explanation would: of which containers the policy does
// not bind the image, so that nothing is denied however it changes.
func (x *explainer) open(ctx context.Context, out io.Writer, asJSON bool) error {
	unbound, err := x.why.Unbound(ctx)
	if err != nil || len(unbound) == 0 || asJSON {
		return err
	}
	_, err = fmt.Fprintf(out, "note: this policy does not bind what the image of %s holds; genpolicy --lock-digests does\n", strings.Join(unbound, ", "))
	return err
}

// decide judges a request, keeps what it changes, and explains a denial if asked to.
func (x *explainer) decide(ctx context.Context, record trace.Record, wanted bool) (decision, *explain.Explanation, error) {
	state := x.engine.State()
	d, err := decide(ctx, x.engine, record)
	if err != nil || d.allowed || !wanted {
		return d, nil, err
	}
	why, err := x.why.Explain(ctx, explain.Question{Kind: record.Kind, Input: record.Request, State: state.Possible[0]})
	if err != nil {
		return d, nil, fmt.Errorf("line %d: %w", record.Line, err)
	}
	why.AddReason(d.reason)
	return d, why, nil
}

// wantsColor reads the --color flag; auto is for a terminal.
func wantsColor(when string, out io.Writer) (bool, error) {
	switch when {
	case "always":
		return true, nil
	case "never":
		return false, nil
	case "auto":
		return isTerminal(out), nil
	}
	return false, usageError(fmt.Errorf("--color is %q, want auto, always or never", when))
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// completeWords lets a shell complete the values of a flag.
func completeWords(cmd *cobra.Command, flag string, words ...string) {
	complete := func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return words, cobra.ShellCompDirectiveNoFileComp
	}
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // the flag was just defined
	}
}
