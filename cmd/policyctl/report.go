// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"portcullis/engine"
	"portcullis/engine/replay"
	"portcullis/engine/trace"
	"portcullis/rules/policydata"
	"portcullis/rules/review"
)

func newReport() *cobra.Command {
	var o reportOptions
	cmd := &cobra.Command{
		Use:   "report --policy F [--trace F] [-o FILE]",
		Short: "Show a policy, and decisions by it, as one HTML page",
		Long: `Write a page for a person who has to agree to a policy: what is worth a look, what each container may run, its image (those
that are not bound first), environment, mounts, capabilities and commands, who may change the policy, what the host may
choose; and the requests of a trace in their order, judged by this policy, with the reasons of denials.

The page is one file: it loads nothing and runs no script. Values of variables are hidden unless --show-secrets is given.`,
		Example: `  policyctl report --policy pod.rego -o pod.html
  policyctl report --policy pod.rego --trace /tmp/policy.txt -o pod.html`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runReport(cmd.Context(), o, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.policy, "policy", "", "`file` with the policy, full or compact form, or with a manifest that has it in its annotation; \"-\" is standard input")
	flags.StringVar(&o.trace, "trace", "", "requests to judge, a `file` that replay reads; \"-\" is standard input")
	flags.StringVarP(&o.out, "output", "o", "", "write the page to this `file` instead of standard output")
	flags.BoolVar(&o.secrets, "show-secrets", false, "show values of variables and credentials")
	return cmd
}

type reportOptions struct {
	policy, trace, out string
	secrets            bool
}

func runReport(ctx context.Context, o reportOptions, stdin io.Reader, stdout io.Writer) error {
	if err := wantsPage(o.out, stdout); err != nil {
		return err
	}
	if err := oneStdin(o.policy, o.trace); err != nil {
		return err
	}
	subject, policy, err := loadSubject(ctx, o.policy, stdin)
	if err != nil {
		return err
	}
	page := review.PageOptions{Secrets: o.secrets}
	if page.Proven, err = provenOf(ctx, subject.Text); err != nil {
		return err
	}
	if o.trace != "" {
		if err := o.timeline(ctx, policy, stdin, &page); err != nil {
			return err
		}
	}
	return writePage(subject, page, o.out, stdout)
}

// wantsPage refuses to write a page to a terminal.
func wantsPage(path string, out io.Writer) error {
	if path == "" && isTerminal(out) {
		return usageError(errors.New("the page is HTML: name a file for it with -o, or redirect it"))
	}
	return nil
}

// writePage writes the page of a policy to a file for the owner alone, or to out where none is named.
func writePage(s *review.Subject, o review.PageOptions, path string, out io.Writer) error {
	var page bytes.Buffer
	if err := s.WritePage(&page, o); err != nil {
		return err
	}
	if path == "" {
		_, err := page.WriteTo(out)
		return err
	}
	return os.WriteFile(path, page.Bytes(), 0o600)
}

// loadSubject reads a policy for review. It has to compile as it would in the guest.
func loadSubject(ctx context.Context, path string, stdin io.Reader) (*review.Subject, *engine.Policy, error) {
	p, err := loadPolicy(ctx, path, stdin)
	if err != nil {
		return nil, nil, err
	}
	s, err := review.Load(ctx, shownName(path), p.Text())
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, p, nil
}

// shownName is what a page calls a file.
func shownName(path string) string {
	if path == "-" {
		return "standard input"
	}
	return filepath.Base(path)
}

// timeline judges the trace and fills in its decisions.
func (o reportOptions) timeline(ctx context.Context, policy *engine.Policy, stdin io.Reader, page *review.PageOptions) error {
	in, err := openInput([]string{o.trace}, stdin)
	if err != nil {
		return err
	}
	defer in.Close()
	x, err := newExplainer(policy)
	if err != nil {
		return err
	}
	defer x.engine.Close()
	page.Trace, page.Decisions = shownName(o.trace), []review.Decision{}
	return eachRecord(ctx, in, &recordHooks{observations: true}, func(ctx context.Context, record trace.Record) error {
		full := len(page.Decisions) >= review.MaxDecisions
		d, why, err := x.decide(ctx, record, !full)
		if err != nil || record.Observed {
			return err
		}
		if full {
			page.Omitted++
			return nil
		}
		shown := review.Decision{
			About: x.about(record), Line: record.Line, Time: record.Time, Kind: engine.OneLine(record.Kind, 80), Case: engine.OneLine(record.Case, 200), Allowed: d.Outcome == replay.Allowed, Unknown: d.Missing, Count: 1,
		}
		if why != nil {
			if !o.secrets {
				why.Hide()
			}
			shown.Reason, shown.Change = why.Sentence(), why.Change
			if why.Container != "" {
				shown.About = why.Container
			}
		}
		shown.About = review.Called(shown.About)
		if differs(record, d) {
			shown.Then = fmt.Sprintf("The record says otherwise: allowed = %t.", *record.Allowed)
		}
		page.Decisions = joinAlike(page.Decisions, shown)
		return nil
	})
}

// about is the container that a request is for: the one it names, or the one that was created under its id.
func (x *explainer) about(record trace.Record) string {
	var request struct {
		ContainerID string `json:"container_id"`
		OCI         *struct{ Annotations map[string]string }
	}
	if json.Unmarshal(record.Request, &request) != nil {
		return "" // it is only to be shown
	}
	if request.OCI != nil {
		if name := request.OCI.Annotations["io.kubernetes.cri.container-name"]; name != "" {
			return engine.OneLine(name, 80)
		}
		return policydata.SandboxContainer
	}
	var state struct {
		PState map[string]any `json:"pstate"`
	}
	if json.Unmarshal(x.engine.State().Possible[0], &state) != nil {
		return ""
	}
	name, _ := state.PState["container:"+request.ContainerID].(string)
	return engine.OneLine(name, 80)
}

// joinAlike adds a decision, or counts it with the one before that is like it.
func joinAlike(list []review.Decision, d review.Decision) []review.Decision {
	if n := len(list); n > 0 {
		last := list[n-1]
		if last.Kind == d.Kind && last.About == d.About && last.Case == d.Case && last.Allowed && d.Allowed && d.Then == last.Then {
			list[n-1].Count++
			return list
		}
	}
	return append(list, d)
}
