// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"portcullis/engine"
	"portcullis/engine/replay"
	"portcullis/engine/trace"
	"portcullis/rules/explain"
)

func newExplain() *cobra.Command {
	o := explainOptions{color: "auto"}
	cmd := &cobra.Command{
		Use:   "explain --policy F [FILE...]",
		Short: "Say why requests are denied, and what to change",
		Long: `Judge the requests of each FILE, or of standard input, in order, and explain each denial in at most three lines: the container of
the policy that the request is nearest to, the first check that failed, where in the request, what it got and what the policy
wants, and what to change in the manifest or the settings. FILE has the formats that replay reads.

Under a policy from another tool, the check is the rule whose expression failed for that container, found by following one
evaluation with prints on; where in the request it looked is found by comparing the request with the policy's data.

Requests that are decided otherwise than the record says come first. One whose decision depends on what the recording does not hold
is UNKNOWN, with what is missing.

A first line names the containers whose image the policy does not bind: one named by a tag may change unseen. Values of
variables and credentials in options are hidden unless --show-secrets is given.

Exit code 0 whether or not requests are denied; replay tells that.`,
		Example: `  policyctl explain --policy pod.rego /tmp/policy.txt
  policyctl explain --policy pod.rego --line 12 --all requests.jsonl
  policyctl explain --policy pod.rego --json requests.jsonl | jq .findings[0]`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return runExplain(cmd, o, args) },
	}
	flags := cmd.Flags()
	flags.StringVar(&o.policy, "policy", "", "`file` with the policy, full or compact form, or with a manifest that has it in its annotation; \"-\" is standard input")
	flags.BoolVar(&o.json, "json", false, "one JSON object for each denial")
	flags.BoolVar(&o.secrets, "show-secrets", false, "show values of variables and credentials")
	flags.BoolVarP(&o.all, "all", "v", false, "every check with its result, every finding, every print")
	flags.StringVar(&o.color, "color", "auto", "colour the text: auto (on a terminal, unless NO_COLOR is set), always or never")
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

func runExplain(cmd *cobra.Command, o explainOptions, paths []string) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	color, err := wantsColor(o.color, out)
	if err != nil {
		return err
	}
	if err := oneStdinBeside(o.policy, paths); err != nil {
		return err
	}
	p, err := loadPolicy(ctx, o.policy, cmd.InOrStdin())
	if err != nil {
		return err
	}
	x, err := newExplainer(p)
	if err != nil {
		return err
	}
	defer x.engine.Close()
	if err := x.open(ctx, out, o.json); err != nil {
		return err
	}
	e := explaining{options: o, explainer: x, out: out, style: explain.Style{Color: color, All: o.all}}
	for i, args := range eachFile(paths) {
		if i > 0 {
			if err := x.session.Reset(ctx); err != nil {
				return err
			}
		}
		if len(paths) > 1 {
			e.file = args[0] + " "
		}
		if err := e.read(ctx, args, cmd.InOrStdin()); err != nil {
			return errors.Join(e.flush(), err)
		}
	}
	if e.selected == 0 {
		return usageError(e.options.nothing())
	}
	if e.denied == 0 && !o.json {
		fmt.Fprintf(&e.rest, "%s, none denied\n", count(e.selected, "request", "requests"))
	}
	return e.flush()
}

// explaining explains the requests of some inputs. What is decided otherwise than recorded comes first, so the rest waits, as long
// as it is at most maxHeld bytes.
type explaining struct {
	options          explainOptions
	explainer        *explainer
	style            explain.Style
	out              io.Writer
	file             string // named with each line, if there are several
	first, rest      bytes.Buffer
	selected, denied int
}

func (e *explaining) read(ctx context.Context, args []string, stdin io.Reader) error {
	in, err := openInput(args, stdin)
	if err != nil {
		return err
	}
	return errors.Join(eachRecord(ctx, in, &recordHooks{observations: true}, e.one), in.Close())
}

func (e *explaining) one(ctx context.Context, record trace.Record) error {
	d, x, err := e.explainer.decide(ctx, record, e.options.selects(record))
	if err != nil || record.Observed || !e.options.selects(record) {
		return err
	}
	e.selected++
	to := &e.rest
	if differs(record, d) && !e.options.json {
		to = &e.first
	}
	if err := e.write(to, record, d, x); err != nil || e.rest.Len() < maxHeld && !e.options.json {
		return err
	}
	return e.flush()
}

// write says what became of one request, if it is not what is expected of it.
func (e *explaining) write(to io.Writer, record trace.Record, d replay.Decision, x *explain.Explanation) error {
	title := fmt.Sprintf("%s%s (%sline %d)", record.Kind, detail(record.Case, ""), e.file, record.Line)
	switch {
	case e.options.json:
		return e.writeJSON(to, record, d, x)
	case d.Outcome == replay.Unknown:
		e.denied++
		_, err := fmt.Fprintf(to, "UNKNOWN %s: not recorded: %s\n", title, d.Missing)
		return err
	case x != nil:
		e.denied++
		if !e.options.secrets {
			x.Hide()
		}
		return x.Write(to, title, e.style)
	case differs(record, d):
		_, err := fmt.Fprintf(to, "ALLOW %s\n", title)
		return err
	}
	return nil
}

func (e *explaining) writeJSON(to io.Writer, record trace.Record, d replay.Decision, x *explain.Explanation) error {
	if x == nil && d.Outcome != replay.Unknown {
		return nil
	}
	e.denied++
	if x != nil && !e.options.secrets {
		x.Hide()
	}
	return writeLine(to, struct {
		Line    int    `json:"line"`
		Case    string `json:"case,omitempty"`
		Missing string `json:"missing,omitempty"`
		*explain.Explanation
	}{record.Line, record.Case, d.Missing, x})
}

// flush prints what was held, what differs from the record first.
func (e *explaining) flush() error {
	if e.first.Len() > 0 {
		if _, err := fmt.Fprintln(e.out, "decided otherwise than recorded:"); err != nil {
			return err
		}
		if _, err := e.first.WriteTo(e.out); err != nil {
			return err
		}
		if e.rest.Len() > 0 {
			if _, err := fmt.Fprintln(e.out, "\nas recorded, or not recorded:"); err != nil {
				return err
			}
		}
	}
	_, err := e.rest.WriteTo(e.out)
	return err
}

// explainer judges requests and explains those that are denied.
type explainer struct {
	engine  *engine.Engine
	session *replay.Session
	why     *explain.Explainer
}

func newExplainer(p *engine.Policy) (*explainer, error) {
	why, err := explain.New(p.Text())
	if err != nil {
		return nil, err
	}
	e := engine.New(p, engine.Options{})
	return &explainer{engine: e, session: replay.New(e), why: why}, nil
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
func (x *explainer) decide(ctx context.Context, record trace.Record, wanted bool) (replay.Decision, *explain.Explanation, error) {
	d, err := x.session.Judge(ctx, record)
	if err != nil || d.Outcome != replay.Denied || !wanted {
		return d, nil, err
	}
	why, err := x.why.Explain(ctx, explain.Question{Kind: record.Kind, Input: record.Request, State: d.State})
	if err != nil {
		return d, nil, fmt.Errorf("line %d: %w", record.Line, err)
	}
	why.AddReason(d.Reason)
	return d, why, nil
}

// wantsColor reads the --color flag; auto is for a terminal of somebody who has not set NO_COLOR.
func wantsColor(when string, out io.Writer) (bool, error) {
	switch when {
	case "always":
		return true, nil
	case "never":
		return false, nil
	case "auto":
		return isTerminal(out) && os.Getenv("NO_COLOR") == "", nil
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
