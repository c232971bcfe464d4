// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"portcullis/rules/generate"
	"portcullis/rules/policydata"
	"portcullis/rules/review"
)

// errStale says that an annotation is not what would be made now; the output has said which.
var errStale = errors.New("an annotation is missing or stale; run genpolicy on it again, or check it with the flags that it was made with")

func newCheck(io stdio) *cobra.Command {
	var f flags
	var maps []string
	cmd := &cobra.Command{
		Use:   "check [FILE]...",
		Short: "Is the policy in a manifest what the manifest gives?",
		Long: `check makes the policies of the manifests again, with the flags that they were made with, and compares them with those in
their annotations; nothing is changed. It prints a line for each pod, and for a policy that differs what the one in the
annotation allows and the new one does not, and the other way round, unless it has other rules, which is FOREIGN. A policy may be there in full or compact form. FILE is a
manifest, a folder of them, or "-" for stdin, which is also read where none is given.

Exit codes: 0 every policy is as it would be made now, 1 one is missing or differs or a manifest is refused, 2 wrong usage,
3 something could not be read.`,
		Example: `  genpolicy check pod.yaml
  genpolicy check -j logs --oci-layout images manifests/`,
		RunE: func(cmd *cobra.Command, paths []string) error {
			f.takeMaps(maps, io.err)
			if len(paths) == 0 {
				paths = []string{"-"}
			}
			return withJob(f, io, paths, func(j *job) error { return j.check(cmd.Context()) })
		},
	}
	cmd.Flags().SortFlags = false
	f.addSources(cmd.Flags(), &maps)
	completeSources(cmd)
	return cmd
}

// check compares the policy of every pod with the one that it has.
func (j *job) check(ctx context.Context) error {
	var faults []error
	stale, pods := false, 0
	for _, s := range j.sources {
		for _, p := range s.manifest.Pods() {
			if !j.selected(p) {
				continue
			}
			pods++
			same, err := j.checkPod(ctx, s.manifest.File(), p)
			if _, only := generate.Findings(err); err != nil && !only {
				return err
			}
			faults = append(faults, err)
			stale = stale || !same
		}
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	if pods == 0 {
		fmt.Fprintln(j.io.out, "nothing to check: no pod in it")
	}
	if stale {
		return errStale
	}
	return nil
}

// checkPod prints what became of one pod, and says whether its policy is as it would be made now.
func (j *job) checkPod(ctx context.Context, file string, p *generate.Pod) (same bool, err error) {
	made, _, err := j.generator.Policy(ctx, p)
	if err != nil {
		return false, err
	}
	out, _, err := j.generator.Render(p, made, j.output)
	if err != nil {
		return false, err
	}
	name := file + ": " + p.Name()
	if p.Annotation(out.Annotation) == "" {
		fmt.Fprintf(j.io.out, "MISSING %s: no annotation %s\n", name, out.Annotation)
		return false, nil
	}
	has, err := policyIn(p, out.Annotation)
	if err != nil {
		fmt.Fprintf(j.io.out, "STALE %s: annotation %s cannot be read: %v\n", name, out.Annotation, err)
		return false, nil
	}
	same, err = j.equal(p, made, has, out)
	if err != nil {
		return false, err
	}
	if same {
		fmt.Fprintf(j.io.out, "OK %s\n", name)
		return true, nil
	}
	return false, j.difference(ctx, name, has, out.Text)
}

// equal compares a policy with the rendered one, and with the other form of it if there is one.
func (j *job) equal(p *generate.Pod, made *policydata.Policy, has []byte, out *generate.Rendered) (bool, error) {
	if bytes.Equal(has, out.Text) {
		return true, nil
	}
	other := j.output
	other.Compact = !other.Compact
	if other.Check() != nil {
		return false, nil // other rules have one form only
	}
	second, _, err := j.generator.Render(p, made, other)
	return err == nil && bytes.Equal(has, second.Text), err
}

// policyIn is the policy in an annotation of a pod.
func policyIn(p *generate.Pod, annotation string) ([]byte, error) {
	found, err := fromAnnotation(p.Name(), annotation, p.Annotation(annotation))
	return found.text, err
}

// difference prints in words how the policy in the annotation differs from the one that would be made.
func (j *job) difference(ctx context.Context, name string, has, made []byte) error {
	new, err := review.Load(ctx, name, made)
	if err != nil {
		return err
	}
	old, err := review.Load(ctx, name, has)
	if err != nil {
		fmt.Fprintf(j.io.out, "STALE %s: the annotation holds no policy that a guest takes: %v\n", name, err)
		return nil
	}
	if old.Rules != new.Rules { // nothing that they say could be compared
		fmt.Fprintf(j.io.out, "FOREIGN %s: the policy in the annotation has rules that genpolicy would not give it now (%s); run genpolicy on it again\n", name, old.Rules)
		return nil
	}
	d := review.Compare(new, old, false)
	if d.Equal() {
		fmt.Fprintf(j.io.out, "STALE %s: the policy in the annotation allows the same in other words: another form, or other rules\n", name)
		return nil
	}
	fmt.Fprintf(j.io.out, "STALE %s\n", name)
	return d.WriteAs(j.io.out, "only the annotation allows:", "only the manifest as it is now gives:")
}
