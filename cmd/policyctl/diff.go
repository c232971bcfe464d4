// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"portcullis/rules/prove"
	"portcullis/rules/review"
)

func newDiff() *cobra.Command {
	var asJSON, secrets bool
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Say what policy B allows that A does not, and the reverse",
		Long: `Compare two policies by what they allow: first what B allows and A does not, then the reverse, container by container, in
words. What is not certain is said at the end: rules that differ or are from another tool, and patterns, which are compared as
text. So is what policyctl prove proves of the two, or shows by requests. Values of variables are hidden unless --show-secrets
is given; that one differs is shown all the same.

Exit code 1: the policies differ.`,
		Example: `  policyctl diff deployed.rego new.rego`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneStdin(args...); err != nil {
				return err
			}
			a, _, err := loadSubject(cmd.Context(), args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			b, _, err := loadSubject(cmd.Context(), args[1], cmd.InOrStdin())
			if err != nil {
				return err
			}
			d := review.Compare(a, b, secrets)
			if asJSON {
				err = writeJSON(cmd.OutOrStdout(), d)
			} else {
				fmt.Fprintf(cmd.OutOrStdout(), "A %s\nB %s\n", args[0], args[1])
				err = errors.Join(d.Write(cmd.OutOrStdout()), writeProofs(cmd, a.Text, b.Text))
			}
			if err == nil && !d.Equal() {
				err = errNo
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as one JSON object")
	cmd.Flags().BoolVar(&secrets, "show-secrets", false, "show values of variables")
	return cmd
}

// writeProofs says which of two policies is proven to allow no more than the other, and where that is refuted, by which request;
// nothing of policies with other rules.
func writeProofs(cmd *cobra.Command, a, b []byte) error {
	prover, of, err := provable(cmd.Context(), a, b)
	if len(of) == 0 {
		return err
	}
	for _, policy := range of {
		defer policy.Close()
	}
	names := []string{"A", "B"}
	for _, pair := range [][2]int{{0, 1}, {1, 0}} {
		r, err := prover.Within(cmd.Context(), of[pair[0]], of[pair[1]])
		if err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), review.Printable(proofOf(names[pair[0]], names[pair[1]], r)))
	}
	return nil
}

// proofOf is one line about whether what a policy allows is allowed by another, the strict one.
func proofOf(strict, loose string, r *prove.Result) string {
	switch r.Verdict {
	case prove.Proven:
		return fmt.Sprintf("proven: %s allows nothing that %s does not; a SetPolicy from %s to %s only narrows", loose, strict, strict, loose)
	case prove.Refuted:
		w := r.Witness
		return fmt.Sprintf("shown: %s allows what %s does not: %s, by %s, the last one a %s; policyctl prove --within %s %s tells more", loose, strict, w.Path,
			count(len(w.Requests), "request", "requests"), w.Requests[len(w.Requests)-1].Kind, strict, loose)
	}
	return fmt.Sprintf("neither proven nor shown that %s allows nothing that %s does not: %s; policyctl prove --within %s %s tells more", loose, strict,
		r.Open[0].Path, strict, loose)
}
