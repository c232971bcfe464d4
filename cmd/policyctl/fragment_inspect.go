// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"portcullis/engine/fragment"
)

// inspected is what inspect prints.
type inspected struct {
	Digest    string          `json:"digest"` // of the document, as event logs have it
	Algorithm string          `json:"algorithm"`
	Subjects  []string        `json:"subjects,omitempty"` // of the x5chain, leaf first
	Document  json.RawMessage `json:"document"`
	Issuer    string          `json:"issuer,omitempty"` // of the policy, who vouches for it
	Refused   string          `json:"refused,omitempty"`
}

func newFragmentInspect() *cobra.Command {
	var policy string
	cmd := &cobra.Command{
		Use:   "inspect [--policy F] FILE",
		Short: "Show what a fragment says, and whether a policy takes it",
		Long: `Print, as JSON, what the envelope in FILE holds. With --policy, a policy or a manifest with its annotation, it is verified as a guest with
that policy would: who of its issuers has signed it, minimum_svn, and the ceiling. Without, no signature is looked at.

Exit code 1: no guest takes FILE, or none with that policy.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			envelope, err := readEnvelope(args[0])
			if err != nil {
				return err
			}
			s, err := fragment.Open(envelope)
			if err != nil {
				return &exitError{exitNo, err}
			}
			out := inspected{Digest: s.Digest(), Algorithm: s.Algorithm(), Subjects: s.Subjects(), Document: s.Payload}
			if policy == "" {
				return writeJSON(cmd.OutOrStdout(), out)
			}
			text, err := policyIn(cmd, policy)
			if err != nil {
				return err
			}
			return out.judge(cmd.OutOrStdout(), s, text)
		},
	}
	cmd.Flags().StringVar(&policy, "policy", "", "the measured policy, a `file`")
	return cmd
}

// judge adds what a policy says, and ends with its exit code.
func (out inspected) judge(w io.Writer, s *fragment.Signed, policy []byte) error {
	issuers, err := fragment.Issuers(policy)
	var issuer *fragment.Issuer
	if err == nil {
		issuer, err = s.Issuer(issuers)
	}
	if err == nil {
		out.Issuer = issuer.ID()
		err = mergeValid(policy, fragment.Accepted{Document: s.Document, Issuer: issuer})
	}
	if err != nil {
		out.Refused = fmt.Sprintf("%.500s", err)
	}
	if err := writeJSON(w, out); err != nil {
		return err
	}
	if err != nil {
		return errNo
	}
	return nil
}
