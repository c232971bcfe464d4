// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"portcullis/engine/fragment"
	"portcullis/internal/bounded"
	"portcullis/rules/policydata"
)

func newFragment() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fragment issuer|make|sign|inspect",
		Short: "Make and read signed updates of a policy",
		Long: `A fragment sets parts of a running pod's policy, such as the image of a container, without a new policy. The measured policy names who
may sign, for which feed, from which svn on, and what may be set within which bounds.

  policyctl fragment issuer   who may update: what genpolicy --issuers takes
  policyctl fragment make     the document: what differs between the measured policy and the next one
  policyctl fragment sign     the document in an envelope (COSE_Sign1)
  policyctl fragment inspect  what an envelope says, and whether a policy takes it

policyctl set-policy sends an envelope to a guest as it does a policy.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError(errors.New("say what to do: issuer, make, sign or inspect; see policyctl fragment --help"))
		},
	}
	cmd.AddCommand(newFragmentIssuer(), newFragmentMake(), newFragmentSign(), newFragmentInspect())
	return cmd
}

func newFragmentMake() *cobra.Command {
	var measured, next, feed string
	var svn uint64
	cmd := &cobra.Command{
		Use:   "make --measured F --next F --feed NAME --svn N",
		Short: "Make a fragment's document from two policies",
		Long: `Print the document that makes the measured policy allow what the next one does: what differs between them, container by container.
Both are policies or manifests with their annotation. What no fragment can set, or an issuer of that feed may not, is refused with exit
code 1. A later document of a feed takes the place of the one before, so compare with the measured policy always.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			before, err := policyIn(cmd, measured)
			if err != nil {
				return err
			}
			after, err := policyIn(cmd, next)
			if err != nil {
				return err
			}
			document, err := makeDocument(before, after, feed, svn)
			if err != nil {
				return &exitError{exitNo, err}
			}
			_, err = cmd.OutOrStdout().Write(document)
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&measured, "measured", "", "the policy that is measured, a `file`")
	flags.StringVar(&next, "next", "", "what the pod is to be, a `file`")
	flags.StringVar(&feed, "feed", "", "`name` of the line of updates")
	flags.Uint64Var(&svn, "svn", 0, "security version `number`, higher than that of the fragment before")
	required(cmd, "measured", "next", "feed", "svn")
	return cmd
}

// policyIn reads the policy of a file, as digest does.
func policyIn(cmd *cobra.Command, path string) ([]byte, error) {
	b, _, err := digestSource{path: path}.read(cmd.Context(), cmd.InOrStdin())
	return b.policy, err
}

// makeDocument makes a document that some issuer of the feed may sign, and that leaves a valid policy.
func makeDocument(measured, next []byte, feed string, svn uint64) ([]byte, error) {
	parts, err := fragment.Between(measured, next)
	if err != nil {
		return nil, err
	}
	if len(parts) == 0 {
		return nil, errors.New("the measured policy and the next one do not differ: nothing to set. A manifest counts by its annotation; run genpolicy on the next one first")
	}
	d := fragment.Document{Version: fragment.Version, Feed: feed, SVN: svn, Containers: parts}
	text, err := d.JSON()
	if err != nil {
		return nil, err
	}
	issuers, err := fragment.Issuers(measured)
	if err != nil {
		return nil, err
	}
	failed := fmt.Errorf("the measured policy has no issuer of feed %q", feed)
	for i := range issuers {
		if issuers[i].Feed != feed {
			continue
		}
		if failed = mergeValid(measured, fragment.Accepted{Document: d, Issuer: &issuers[i]}); failed == nil {
			return text, nil
		}
	}
	return nil, failed
}

// mergeValid says whether the fragment is within the ceiling and leaves a policy without inner faults.
func mergeValid(measured []byte, f fragment.Accepted) error {
	if f.Document.SVN < f.Issuer.MinimumSVN {
		return fmt.Errorf("svn %d is below the policy's minimum_svn %d", f.Document.SVN, f.Issuer.MinimumSVN)
	}
	text, err := fragment.Merge(measured, []fragment.Accepted{f})
	if err != nil {
		return err
	}
	p, _, err := policydata.Parse(text)
	if err != nil {
		return err
	}
	return p.Validate()
}

func newFragmentSign() *cobra.Command {
	var key, chain string
	var asText bool
	cmd := &cobra.Command{
		Use:   "sign --key F [--chain F] DOCUMENT",
		Short: "Sign a fragment's document",
		Long: `Sign a document and print the envelope: a COSE_Sign1 (RFC 9052) by a key on P-256 (ES256) or P-384 (ES384), an Ed25519 key (EdDSA) or an
RSA key of at least 3072 bits (PS256). An issuer that the policy names by root and subject needs the chain, leaf first and root last.

--text prints it as one line of text, as initdata takes it. DOCUMENT may be "-".`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			envelope, err := signDocument(cmd.InOrStdin(), args[0], key, chain)
			if err != nil {
				return err
			}
			if asText {
				envelope = fragment.Text(envelope)
			}
			_, err = cmd.OutOrStdout().Write(envelope)
			return err
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "PEM `file` with the private key")
	cmd.Flags().StringVar(&chain, "chain", "", "PEM `file` with the key's certificates, leaf first and root last")
	cmd.Flags().BoolVar(&asText, "text", false, "print one line of text")
	required(cmd, "key")
	return cmd
}

func signDocument(stdin io.Reader, path, key, chain string) ([]byte, error) {
	in, err := openInput([]string{path}, stdin)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	text, err := bounded.ReadAll(in, fragment.MaxEnvelope)
	if err != nil {
		return nil, fmt.Errorf("read document: %w", err)
	}
	document, err := fragment.ParseDocument(text)
	if err != nil {
		return nil, &exitError{exitNo, err}
	}
	signer, err := readSigner(key)
	if err != nil {
		return nil, fmt.Errorf("--key: %w", err)
	}
	certificates, err := readChain(chain)
	if err != nil {
		return nil, fmt.Errorf("--chain: %w", err)
	}
	return fragment.Sign(document, signer, certificates)
}

// readChain reads the certificates of a PEM file, as DER; none without a path.
func readChain(path string) ([][]byte, error) {
	if path == "" {
		return nil, nil
	}
	text, err := bounded.ReadFile(path, maxEvidence)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			out = append(out, block.Bytes)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s holds no certificate in PEM", path)
	}
	return out, nil
}

// readEnvelope reads a fragment's file, in either of its forms.
func readEnvelope(path string) ([]byte, error) {
	content, err := bounded.ReadFile(path, 2*fragment.MaxEnvelope)
	if err != nil {
		return nil, err
	}
	if fragment.IsText(content) {
		return fragment.FromText(content)
	}
	return content, nil
}
