// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"portcullis/engine/policytext"
	"portcullis/hostdata/initdata"
	"portcullis/internal/bounded"
	"portcullis/rules/generate"
	"portcullis/rules/policydata"
	"portcullis/rules/review"
)

func newExplain(io stdio) *cobra.Command {
	return &cobra.Command{
		Use:   "explain FILE",
		Short: "Say in words what a policy lets each container do",
		Long: `explain reads a policy and says in words what it lets each container do. FILE is a
manifest with policies in its annotations, a policy, policy_data, or an initdata
document; "-" is stdin. What the policy leaves unbound comes first. Values of
environment variables are not printed.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("explain takes one file, got %d", len(args))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return explain(args[0], io) },
	}
}

// named is a policy text with what it is called in the output.
type named struct {
	name string
	text []byte
}

func explain(path string, io stdio) error {
	var text []byte
	var err error
	if path == "-" {
		text, err = bounded.ReadAll(io.in, maxInput)
	} else {
		text, err = readFile(path)
	}
	if err != nil {
		return err
	}
	found, err := findPolicies(path, text)
	if err != nil {
		return err
	}
	for i, n := range found {
		policy, _, err := policydata.Parse(n.text)
		if err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
		if i > 0 {
			fmt.Fprintln(io.out)
		}
		if err := review.WriteText(io.out, n.name, policy); err != nil {
			return err
		}
	}
	return nil
}

// findPolicies tells what a file is by what it looks like.
func findPolicies(path string, text []byte) ([]named, error) {
	if _, err := policytext.Split(text); err == nil && !bytes.Contains(text, []byte(`"apiVersion"`)) {
		return []named{{path, text}}, nil
	}
	if doc, err := initdata.Parse(text); err == nil {
		found, err := fromInitdata(path, doc)
		return []named{found}, err
	}
	m, err := generate.Parse(path, text, generate.ReadOptions{IgnoreUnknown: true})
	if err != nil {
		return nil, err
	}
	var all []named
	for _, p := range m.Pods() {
		some, err := fromPod(p)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", path, p.Name(), err)
		}
		all = append(all, some...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no policy; run genpolicy on it first", path)
	}
	return all, nil
}

func fromPod(p *generate.Pod) ([]named, error) {
	var all []named
	for _, annotation := range []string{initdata.Annotation, initdata.PolicyAnnotation} {
		value := p.Annotation(annotation)
		if value == "" {
			continue
		}
		found, err := fromAnnotation(p.Name(), annotation, value)
		if err != nil {
			return nil, err
		}
		all = append(all, found)
	}
	return all, nil
}

// fromAnnotation reads the policy that an annotation carries.
func fromAnnotation(name, annotation, value string) (named, error) {
	value = strings.TrimSpace(value)
	if annotation == initdata.PolicyAnnotation {
		text, err := initdata.ParsePolicy(value)
		return named{name, text}, err
	}
	doc, err := initdata.ParseAnnotation(value)
	if err != nil {
		return named{}, err
	}
	return fromInitdata(name, doc)
}

func fromInitdata(name string, doc *initdata.Document) (named, error) {
	text, ok := doc.Value(initdata.PolicyKey)
	if !ok {
		return named{}, fmt.Errorf("%s: the initdata has no %s", name, initdata.PolicyKey)
	}
	return named{name, []byte(text)}, nil
}
