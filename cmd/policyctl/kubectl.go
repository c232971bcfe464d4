// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"portcullis/internal/bounded"
	"portcullis/rules/admission"
	"portcullis/rules/generate"
	"portcullis/rules/policydata"
	"portcullis/rules/review"
)

// pluginName is what kubectl looks for to answer "kubectl portcullis".
const pluginName = "kubectl-portcullis"

// pluginArguments are the arguments of the program, which under the plugin's name are those of the verb kubectl.
func pluginArguments(program string, args []string) []string {
	if filepath.Base(program) == pluginName {
		return append([]string{"kubectl"}, args...)
	}
	return args
}

func newKubectl() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kubectl",
		Short: "Explain, report and check the policies of pods in a cluster",
		Long: `A plugin for kubectl: a link to policyctl of the name ` + pluginName + ` in the PATH makes "kubectl portcullis" of it. It has kubectl
read the pod, so that all of kubectl's ways to a cluster are its own; with -f it reads what "kubectl get -o yaml" printed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var o kubectlOptions
	flags := cmd.PersistentFlags()
	flags.StringVarP(&o.namespace, "namespace", "n", "", "`NAMESPACE` of the pod")
	flags.StringVar(&o.context, "context", "", "`NAME` of the context in kubectl's configuration")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "kubectl's configuration `FILE`")
	flags.StringVarP(&o.file, "filename", "f", "", "read `FILE`, the output of kubectl get -o yaml or -o json, or - for standard input")
	cmd.AddCommand(o.explain(), o.report(), o.check())
	return cmd
}

// kubectlOptions say where the pod is.
type kubectlOptions struct{ namespace, context, kubeconfig, file string }

func (o *kubectlOptions) explain() *cobra.Command {
	return &cobra.Command{
		Use:   "explain [POD]",
		Short: "Say what a pod's policy allows, and which denials its status tells of",
		Example: `  kubectl portcullis explain web-7d9c5b6f4d-x2x8q -n shop
  kubectl portcullis explain deployment/web
  kubectl get pod web -o yaml | kubectl portcullis explain -f -`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			manifest, err := o.read(cmd.Context(), args, cmd.InOrStdin())
			if err != nil {
				return err
			}
			err = each(manifest, func(p *generate.Pod, text []byte) error { return explainPod(cmd.OutOrStdout(), p, text) })
			if err != nil {
				return err
			}
			return denials(cmd.OutOrStdout(), manifest)
		},
	}
}

func (o *kubectlOptions) report() *cobra.Command {
	var out string
	var secrets bool
	cmd := &cobra.Command{
		Use:   "report [POD] -o FILE",
		Short: "Show a pod's policy as one HTML page",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := wantsPage(out, cmd.OutOrStdout()); err != nil {
				return err
			}
			manifest, err := o.read(cmd.Context(), args, cmd.InOrStdin())
			if err != nil {
				return err
			}
			written := false
			return each(manifest, func(p *generate.Pod, text []byte) error {
				if written {
					return usageError(errors.New("there are several pods; name one"))
				}
				written = true
				s, err := review.Load(cmd.Context(), p.Name(), text)
				if err != nil {
					return err
				}
				return writePage(s, review.PageOptions{Secrets: secrets}, out, cmd.OutOrStdout())
			})
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "write the page to this `file` instead of standard output")
	cmd.Flags().BoolVar(&secrets, "show-secrets", false, "show values of variables and credentials")
	return cmd
}

func (o *kubectlOptions) check() *cobra.Command {
	var judge judgeOptions
	cmd := &cobra.Command{
		Use:   "check [POD]",
		Short: "Judge a pod's annotation as the admission webhook would",
		Long:  "Judge a pod's annotation as the admission webhook would: see policyctl check.\n\nExit code 1: the pod would be refused.",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := o.read(cmd.Context(), args, cmd.InOrStdin())
			if err != nil {
				return err
			}
			return judge.check(cmd.Context(), []string{"-"}, stdio{bytes.NewReader(text), cmd.OutOrStdout(), cmd.ErrOrStderr()})
		},
	}
	judge.add(cmd)
	return cmd
}

// read gives the manifest: kubectl's, or that of -f.
func (o *kubectlOptions) read(ctx context.Context, args []string, stdin io.Reader) ([]byte, error) {
	switch {
	case (len(args) == 0) == (o.file == ""):
		return nil, usageError(errors.New("name one pod, or -f FILE"))
	case o.file == "-":
		return bounded.ReadAll(stdin, maxManifest)
	case o.file != "":
		return bounded.ReadFile(o.file, maxManifest)
	}
	name := args[0]
	if strings.HasPrefix(name, "-") {
		return nil, usageError(fmt.Errorf("%q is no name of a pod", name))
	}
	if !strings.Contains(name, "/") {
		name = "pod/" + name
	}
	call := []string{"get", name, "-o", "yaml"}
	for flag, value := range map[string]string{"--namespace": o.namespace, "--context": o.context, "--kubeconfig": o.kubeconfig} {
		if value != "" {
			call = append(call, flag+"="+value)
		}
	}
	cmd := exec.CommandContext(ctx, "kubectl", call...)
	var said bytes.Buffer
	cmd.Stderr = &said
	text, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil, fmt.Errorf("kubectl get %s: %s", name, strings.TrimSpace(said.String()))
	}
	if err != nil {
		return nil, fmt.Errorf("run kubectl: %w", err)
	}
	return text, nil
}

// each does something with the policy of each pod of a manifest.
func each(manifest []byte, do func(p *generate.Pod, policy []byte) error) error {
	m, err := generate.Parse("the manifest", manifest, generate.ReadOptions{IgnoreUnknown: true})
	if err != nil {
		return &exitError{exitNo, err}
	}
	if len(m.Pods()) == 0 {
		return usageError(errors.New("there is no pod in it"))
	}
	for _, p := range m.Pods() {
		key, policy, err := admission.PolicyOf(p.Template().Annotations)
		if err != nil {
			return &exitError{exitNo, fmt.Errorf("%s: annotation %s: %w", p.Name(), key, err)}
		}
		if key == "" {
			return &exitError{exitNo, fmt.Errorf("%s has no annotation with a policy; genpolicy adds it", p.Name())}
		}
		if err := do(p, policy); err != nil {
			return err
		}
	}
	return nil
}

func explainPod(out io.Writer, p *generate.Pod, text []byte) error {
	policy, _, err := policydata.Parse(text)
	if err != nil {
		return &exitError{exitNo, fmt.Errorf("%s: %w", p.Name(), err)}
	}
	return review.WriteText(out, p.Name(), policy)
}
