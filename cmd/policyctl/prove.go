// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"portcullis/rules/prove"
	"portcullis/rules/review"
)

func newProve() *cobra.Command {
	var o proveOptions
	cmd := &cobra.Command{
		Use:   "prove POLICY [PROPERTY...] | --within A B | --equal A B",
		Short: "Prove what a policy allows, or show a request that says otherwise",
		Long: `Answer a question about policies by proof, not by trying requests: whether policy B allows no more than policy A (--within A B),
whether both allow the same (--equal A B), whether POLICY has properties (--list names them), and whether it has all that a
cluster's floor requires (--floor FILE), which is the floor of check and admit: require, a list of properties; registries, the
beginnings that image names may have; capabilities, the most that a container may have; image_digests. POLICY, A and B are policies,
manifests with one in their annotation, or "-" for standard input.

An answer that is no proof comes with requests: they begin a pod, and the last is allowed by one policy and denied by the other, as
the engine that runs in the guest has decided. --witness FILE writes them for replay and explain. What can be neither proven nor shown is
unknown, never guessed; so is everything about a policy whose rules are not of this release.

Exit codes: 0 proven, 1 refuted, 3 unknown.`,
		Example: `  policyctl prove --within deployed.rego new.rego
  policyctl prove pod.rego 'no exec' 'stdout closed' 'container web cannot see volume data'
  policyctl prove --floor cluster.toml pod.rego`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneStdin(args...); err != nil {
				return err
			}
			o.in, o.out, o.err = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
			questions, err := o.questions(args)
			if err != nil {
				return err
			}
			return o.run(cmd.Context(), questions)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.within, "within", false, "prove that policy B allows no more than policy A")
	flags.BoolVar(&o.equal, "equal", false, "prove that policies A and B allow the same")
	flags.BoolVar(&o.list, "list", false, "list the properties")
	flags.StringVar(&o.floor, "floor", "", "prove what this floor, a `file`, requires")
	flags.StringVar(&o.witness, "witness", "", "write the requests that refute to this `file`")
	flags.BoolVar(&o.json, "json", false, "as one JSON object for each question")
	return cmd
}

type proveOptions struct {
	within, equal, list, json bool
	floor, witness            string
	in                        io.Reader
	out, err                  io.Writer
}

// workingOn says after one tick, and then every ten, what is being worked on and for how long, until what it returns is called.
func workingOn(what string, out io.Writer, tick time.Duration) (done func()) {
	began, stop, stopped := time.Now(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for next := tick; ; next = 10 * tick {
			select {
			case <-stop:
				return
			case <-time.After(next):
				fmt.Fprintf(out, "policyctl: %s: compared for %v so far\n", what, time.Since(began).Round(tick))
			}
		}
	}()
	return func() { close(stop); <-stopped }
}

// question is one thing to be proven of policies, in the order in which their files are named.
type question struct {
	Says  string `json:"question"`
	files []string
	ask   func(ctx context.Context, p *prove.Prover, of []*prove.Policy) (*prove.Result, error)
}

func (o *proveOptions) questions(args []string) ([]question, error) {
	within := func(a, b string) question {
		return question{b + " allows no more than " + a, []string{a, b}, func(ctx context.Context, p *prove.Prover, of []*prove.Policy) (*prove.Result, error) {
			return p.Within(ctx, of[0], of[1])
		}}
	}
	switch {
	case o.list:
		return nil, nil
	case o.within || o.equal:
		if len(args) != 2 || o.floor != "" || o.within && o.equal {
			return nil, usageError(errors.New("want two policies after --within or --equal; see policyctl prove --help"))
		}
		if o.within {
			return []question{within(args[0], args[1])}, nil
		}
		return []question{within(args[0], args[1]), within(args[1], args[0])}, nil
	case len(args) == 0 || len(args) == 1 && o.floor == "":
		return nil, usageError(errors.New("want a policy and what to prove; see policyctl prove --help"))
	}
	return o.properties(args[0], args[1:])
}

func (o *proveOptions) properties(file string, names []string) ([]question, error) {
	var all []prove.Property
	for _, name := range names {
		property, err := prove.ParseProperty(name)
		if err != nil {
			return nil, usageError(fmt.Errorf("%w; policyctl prove --list names them", err))
		}
		all = append(all, property)
	}
	if o.floor != "" {
		floor, err := (&judgeOptions{floor: o.floor}).readFloor()
		if err != nil {
			return nil, err
		}
		demanded, err := floor.Proven()
		if err == nil && len(demanded) == 0 {
			err = errors.New("it requires nothing to be proven; the other keys are for policyctl check")
		}
		if err != nil {
			return nil, usageError(fmt.Errorf("%s: %w", o.floor, err))
		}
		all = append(all, demanded...)
	}
	var out []question
	for _, property := range all {
		out = append(out, question{property.Name, []string{file}, func(ctx context.Context, p *prove.Prover, of []*prove.Policy) (*prove.Result, error) {
			return p.Holds(ctx, of[0], property)
		}})
	}
	return out, nil
}

func (o *proveOptions) run(ctx context.Context, questions []question) error {
	if o.list {
		for _, form := range prove.Forms() {
			fmt.Fprintf(o.out, "%s\n    %s\n", form[0], form[1])
		}
		return nil
	}
	prover, err := prove.New()
	if err != nil {
		return err
	}
	var refuted, unknown bool
	for _, q := range questions {
		result, err := o.answer(ctx, prover, q)
		if err != nil {
			return err
		}
		refuted = refuted || result.Verdict == prove.Refuted
		unknown = unknown || result.Verdict == prove.Unknown
	}
	switch {
	case refuted:
		return errNo
	case unknown:
		return &exitError{code: exitFail}
	}
	return nil
}

func (o *proveOptions) answer(ctx context.Context, prover *prove.Prover, q question) (*prove.Result, error) {
	var of []*prove.Policy
	for _, file := range q.files {
		name, text, err := readPolicy(file, o.in)
		if err != nil {
			return nil, err
		}
		policy, err := prover.Load(ctx, text)
		if err != nil { // what is no policy at all is told as such
			if _, broken := compilePolicy(ctx, name, text); broken != nil {
				return nil, broken
			}
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		defer policy.Close()
		of = append(of, policy)
	}
	done := workingOn(q.Says, o.err, time.Second)
	result, err := q.ask(ctx, prover, of)
	done()
	if err != nil {
		return nil, err
	}
	if result.Witness != nil && o.witness != "" {
		if err := writeWitness(o.witness, result.Witness); err != nil {
			return nil, err
		}
	}
	if o.json {
		return result, writeLine(o.out, struct {
			question
			*prove.Result
		}{q, result})
	}
	return result, o.print(q, result)
}

func (o *proveOptions) print(q question, r *prove.Result) error {
	var text strings.Builder
	line := func(format string, args ...any) {
		text.WriteString(review.Printable(fmt.Sprintf(format, args...)) + "\n")
	}
	line("%s: %s", r.Verdict, q.Says)
	if r.Note != "" {
		line("  note: %s in the policy", r.Note)
	}
	for _, open := range r.Open {
		line("  neither proven nor shown: %s: %s (check %s)", open.Path, open.Says, open.Check)
	}
	if w := r.Witness; w != nil {
		last := w.Requests[len(w.Requests)-1]
		line("  %s: %s (check %s)", w.Path, w.Says, w.Check)
		line("  shown by %s, the last one a %s, which the other denies: %s", count(len(w.Requests), "request", "requests"), last.Kind, w.Reason)
	}
	_, err := io.WriteString(o.out, text.String())
	return err
}

// provenOf are the meanings of the properties that a policy is proven to have; none for a policy with other rules.
func provenOf(ctx context.Context, text []byte) ([]string, error) {
	prover, of, err := provable(ctx, text)
	if len(of) == 0 {
		return nil, err
	}
	defer of[0].Close()
	properties, err := prover.Properties(ctx, of[0])
	return meanings(properties), err
}

// meanings are the sentences of properties. Of a volume that several containers cannot see there is one.
func meanings(properties []prove.Property) []string {
	var out []string
	blind := map[string][]string{} // volume -> containers
	at := map[string]int{}
	for _, property := range properties {
		words := strings.Fields(property.Name)
		if len(words) != 6 || words[2] != "cannot" {
			out = append(out, property.Meaning)
			continue
		}
		name, volume := words[1], words[5]
		blind[volume] = append(blind[volume], name)
		if len(blind[volume]) == 1 {
			at[volume] = len(out)
			out = append(out, property.Meaning)
			continue
		}
		out[at[volume]] = fmt.Sprintf("Containers %s have no mount of volume %s.", strings.Join(blind[volume], ", "), volume)
	}
	return out
}

// provable loads policies to prove something of them: none if one of them has other rules, or with an error.
func provable(ctx context.Context, texts ...[]byte) (*prove.Prover, []*prove.Policy, error) {
	prover, err := prove.New()
	if err != nil {
		return nil, nil, err
	}
	var of []*prove.Policy
	for _, text := range texts {
		policy, err := prover.Load(ctx, text)
		if err != nil {
			for _, loaded := range of {
				loaded.Close()
			}
			if errors.Is(err, prove.ErrRules) {
				err = nil
			}
			return nil, nil, err
		}
		of = append(of, policy)
	}
	return prover, of, nil
}

// writeWitness writes requests as replay reads them.
func writeWitness(path string, w *prove.Witness) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write witness: %w", err)
	}
	for _, r := range w.Requests {
		if err := writeLine(f, map[string]any{"kind": r.Kind, "request": r.Input}); err != nil {
			return errors.Join(fmt.Errorf("write witness: %w", err), f.Close())
		}
	}
	return f.Close()
}
