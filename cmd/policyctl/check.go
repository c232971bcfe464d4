// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"portcullis/internal/bounded"
	"portcullis/rules/admission"
	"portcullis/rules/generate"
	"portcullis/rules/settings"
)

func newCheck() *cobra.Command {
	var o judgeOptions
	cmd := &cobra.Command{
		Use:   "check FILE...",
		Short: "Judge the annotations of a manifest as the admission webhook would",
		Long: `Say of each pod of the manifests whether its policy is there, can be read, is of this release's rules, is of this pod as it is
now, and asks no less than the cluster's floor. It is what "policyctl admit" does to a pod, without a cluster. FILE is a manifest,
a folder of them, or "-" for standard input; the output of "kubectl get -o yaml" is a manifest too. Of charts and kustomizations
give what "helm template" and "kustomize build" print.

No image is opened: what an image gives is taken as the policy has it, and so are the values of ConfigMaps and Secrets.
"genpolicy check" opens them, and makes the whole policy again.

Without --floor, pods of runtime classes that begin with kata are judged, by what no policy may allow. Other pods are passed over.

Exit code 1: a pod would be refused.`,
		Example: `  policyctl check --floor floor.toml manifests/
  kubectl get pods -o yaml | policyctl check -`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, paths []string) error {
			return o.check(cmd.Context(), paths, streams(cmd))
		},
	}
	o.add(cmd)
	return cmd
}

// judgeOptions say by what pods are judged.
type judgeOptions struct {
	floor    string
	settings []string
}

func (o *judgeOptions) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.floor, "floor", "", "TOML `file` with what the cluster asks of every policy")
	cmd.Flags().StringArrayVarP(&o.settings, "settings", "j", nil,
		"settings that the policies are made with: a TOML `FILE`, or one of "+strings.Join(settings.DropIns(), ", ")+" (repeatable)")
}

// judge makes the judge of a floor.
func (o *judgeOptions) judge(f *admission.Floor) (*admission.Judge, error) {
	var over []settings.DropIn
	for _, name := range o.settings {
		if slices.Contains(settings.DropIns(), name) {
			d, err := settings.Named(name)
			if err != nil {
				return nil, err
			}
			over = append(over, d)
			continue
		}
		text, err := bounded.ReadFile(name, maxManifest)
		if err != nil {
			return nil, fmt.Errorf("read settings: %w", err)
		}
		over = append(over, settings.DropIn{Name: name, Text: text})
	}
	return admission.New(f, over...)
}

func (o *judgeOptions) readFloor() (*admission.Floor, error) {
	if o.floor == "" {
		return &admission.Floor{RuntimeClasses: []string{"kata"}, Platform: settings.DefaultPlatform}, nil
	}
	text, err := bounded.ReadFile(o.floor, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("read floor: %w", err)
	}
	f, err := admission.ParseFloor(text)
	if err != nil {
		return nil, usageError(fmt.Errorf("%s: %w", o.floor, err))
	}
	return f, nil
}

func (o *judgeOptions) check(ctx context.Context, paths []string, io stdio) error {
	out := io.out
	floor, err := o.readFloor()
	if err != nil {
		return err
	}
	judge, err := o.judge(floor)
	if err != nil {
		return usageError(err)
	}
	manifests, err := readManifests(paths, io.in, io.err)
	if err != nil {
		return err
	}
	judged, refused := 0, false
	for _, m := range manifests {
		for _, p := range m.Pods() {
			if !judge.Covers(p.RuntimeClass()) {
				continue
			}
			judged++
			refusals, err := judge.Pod(ctx, p.Template())
			if err != nil {
				return fmt.Errorf("%s: %s: %w", m.File(), p.Name(), err)
			}
			if len(refusals) == 0 {
				fmt.Fprintf(out, "OK %s: %s\n", m.File(), p.Name())
			}
			for _, r := range refusals {
				refused = true
				fmt.Fprintf(out, "%s %s: %s: %s\n", strings.ToUpper(string(r.Fault)), m.File(), p.Name(), r.Text)
			}
		}
	}
	if judged == 0 {
		fmt.Fprintln(out, "nothing to check: no pod of these runtime classes in it")
	}
	if refused {
		return errNo
	}
	return nil
}

// readManifests reads files, the manifests in folders, and standard input for "-". What is passed over in folders is told as a note.
func readManifests(paths []string, stdin io.Reader, notes io.Writer) ([]*generate.Manifest, error) {
	if err := oneStdin(paths...); err != nil {
		return nil, err
	}
	var all []*generate.Manifest
	for _, path := range paths {
		files := []string{path}
		if path != "-" {
			var passed []*generate.Finding
			var err error
			if files, passed, err = generate.Files(path); err != nil {
				return nil, err
			}
			for _, file := range passed {
				fmt.Fprintln(notes, "note:", file)
			}
		}
		for _, file := range files {
			m, err := readManifest(file, stdin)
			if err != nil {
				return nil, err
			}
			all = append(all, m)
		}
	}
	return all, nil
}

func readManifest(file string, stdin io.Reader) (*generate.Manifest, error) {
	name := file
	if file == "-" {
		name = "stdin"
	}
	in, err := openInput([]string{file}, stdin)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	text, err := bounded.ReadAll(in, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	m, err := generate.Parse(name, text, generate.ReadOptions{IgnoreUnknown: true})
	if err != nil {
		return nil, &exitError{exitNo, err}
	}
	return m, nil
}
