// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"portcullis/images/signature"
	"portcullis/internal/bounded"
	"portcullis/rules/statement"
	"portcullis/rules/statement/bundle"
	"portcullis/rules/statement/receipt"
)

// maxKey bounds a key and its password, in bytes.
const maxKey = 64 << 10

func newStatement() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "statement",
		Short: "Sign, and check, what a policy was made from",
		Long: `A statement says which manifests, settings, rules and images policies were made from, and by which version: genpolicy --statement writes
one, as an in-toto statement with SLSA provenance. Signed it is a Sigstore bundle, which cosign verify-blob-attestation reads too.`,
	}
	cmd.AddCommand(newStatementSign(), newStatementVerify())
	return cmd
}

func newStatementSign() *cobra.Command {
	var o struct{ key, password, output string }
	cmd := &cobra.Command{
		Use:   "sign STATEMENT --key FILE",
		Short: "Sign a statement with a key",
		Long: `Sign STATEMENT with the private key in FILE, PEM, and print the Sigstore bundle. The key may be one of cosign's, which a
password protects: --password-file.`,
		Example: `  genpolicy -y shop.yaml --lock-digests --statement shop.intoto.json
  policyctl statement sign shop.intoto.json --key cosign.key --password-file password --output shop.sigstore.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, text, err := readText(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			key, err := readPrivateKey(o.key, o.password)
			if err != nil {
				return err
			}
			signed, err := bundle.Sign(cmd.Context(), text, key)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return writeOutput(o.output, cmd.OutOrStdout(), signed)
		},
	}
	cmd.Flags().StringVar(&o.key, "key", "", "private key, a PEM `file`")
	cmd.Flags().StringVar(&o.password, "password-file", "", "`file` with the password of the key; a line feed at its end does not count")
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "write to this `file`")
	return cmd
}

// readPrivateKey reads the key of --key.
func readPrivateKey(path, passwordFile string) (crypto.Signer, error) {
	if path == "" {
		return nil, usageError(errors.New("--key is missing: with which key?"))
	}
	pem, err := bounded.ReadFile(path, maxKey)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	var password []byte
	if passwordFile != "" {
		if password, err = bounded.ReadFile(passwordFile, maxKey); err != nil {
			return nil, fmt.Errorf("read password: %w", err)
		}
		password = bytes.TrimSuffix(password, []byte("\n"))
	}
	key, err := bundle.ParseKey(pem, password)
	if err != nil {
		return nil, usageError(fmt.Errorf("--key %s: %w", path, err))
	}
	return key, nil
}

func newStatementVerify() *cobra.Command {
	var o statementOptions
	cmd := &cobra.Command{
		Use:   "verify BUNDLE --key FILE [POLICY...]",
		Short: "Check who signed a statement, and that it speaks of these policies",
		Long: `Check that BUNDLE is a statement signed by the key whose public half is in FILE, PEM, and print what the policies were made from. It must
speak of each POLICY: a policy, an initdata document as TOML (--initdata), or a manifest with one of them in its annotation.

--receipt says besides that the bundle is in a transparency log: a Merkle proof with a checkpoint signed by --log-key, in the form
c2sp.org/tlog-proof. The log is not asked.

That the key is the right one, and was so when it signed, is for you to know: a bundle has no certificate and no time.

Exit codes: 0 signed, and speaks of each POLICY, 1 not, 3 could not be checked.`,
		Example: `  policyctl statement verify shop.sigstore.json --key cosign.pub shop.yaml`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneStdin(args...); err != nil {
				return err
			}
			o.in, o.out = cmd.InOrStdin(), cmd.OutOrStdout()
			return o.verify(cmd.Context(), args[0], args[1:])
		},
	}
	cmd.Flags().StringVar(&o.key, "key", "", "public key, a PEM `file`")
	cmd.Flags().BoolVar(&o.isInitdata, "initdata", false, "each POLICY is an initdata document")
	cmd.Flags().BoolVar(&o.json, "json", false, "print the statement as JSON")
	cmd.Flags().StringVar(&o.receipt, "receipt", "", "`file` with a transparency log's receipt for BUNDLE")
	cmd.Flags().StringVar(&o.logKey, "log-key", "", "public `key` of the log, as name+hash+base64")
	return cmd
}

// statementOptions are the flags of statement verify.
type statementOptions struct {
	key              string
	receipt, logKey  string
	isInitdata, json bool
	in               io.Reader
	out              io.Writer
}

func (o *statementOptions) verify(ctx context.Context, path string, policies []string) error {
	if (o.receipt == "") != (o.logKey == "") {
		return usageError(errors.New("--receipt and --log-key go together"))
	}
	name, text, err := readText(path, o.in)
	if err != nil {
		return fmt.Errorf("read bundle: %w", err)
	}
	s, err := o.signed(name, text)
	if err != nil {
		return err
	}
	entry, err := o.logged(text)
	if err != nil {
		return err
	}
	for _, policy := range policies {
		b, _, err := digestSource{path: policy, isInitdata: o.isInitdata}.read(ctx, o.in)
		if err != nil {
			return err
		}
		if s.About(b.Alg, b.Digest) == "" {
			return &exitError{exitNo, fmt.Errorf("%s: the statement does not speak of this %s (%s %x)", policy, b.Kind, b.Alg, b.Digest)}
		}
	}
	if o.json {
		return writeJSON(o.out, s)
	}
	fmt.Fprintln(o.out, "OK signed by the key in", o.key)
	if entry != nil {
		fmt.Fprintf(o.out, "OK in the log %s, entry %d of %d\n", entry.Log, entry.Index, entry.Size)
	}
	o.print(s)
	return nil
}

// logged checks the receipt for a bundle, if there is to be one.
func (o *statementOptions) logged(text []byte) (*receipt.Entry, error) {
	if o.receipt == "" {
		return nil, nil
	}
	proof, err := bounded.ReadFile(o.receipt, receipt.MaxBytes)
	if err != nil {
		return nil, fmt.Errorf("read receipt: %w", err)
	}
	entry, err := receipt.Verify(proof, text, o.logKey)
	switch {
	case errors.Is(err, receipt.ErrKey):
		return nil, usageError(fmt.Errorf("--log-key: %w", err))
	case errors.Is(err, receipt.ErrReceipt):
		return nil, fmt.Errorf("%s: %w", o.receipt, err)
	case err != nil:
		return nil, &exitError{exitNo, fmt.Errorf("%s: %w", o.receipt, err)}
	}
	return &entry, nil
}

// signed reads a bundle that the key signed.
func (o *statementOptions) signed(name string, text []byte) (*statement.Statement, error) {
	if o.key == "" {
		return nil, usageError(errors.New("--key is missing: signed by whom?"))
	}
	pem, err := bounded.ReadFile(o.key, maxKey)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	key, err := signature.ParseKey(pem)
	if err != nil {
		return nil, usageError(fmt.Errorf("--key %s: %w", o.key, err))
	}
	s, err := bundle.Verify(text, key)
	if errors.Is(err, bundle.ErrSignature) {
		return nil, &exitError{exitNo, fmt.Errorf("%s: %w", name, err)}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

func (o *statementOptions) print(s *statement.Statement) {
	made := s.Predicate.BuildDefinition
	fmt.Fprintf(o.out, "made by   genpolicy %s for %s, %s form", s.Predicate.RunDetails.Builder.Version["genpolicy"], made.ExternalParameters.Platform, made.ExternalParameters.Form)
	for _, name := range made.ExternalParameters.DropIns {
		fmt.Fprintf(o.out, ", -j %s", name)
	}
	fmt.Fprintln(o.out)
	for _, group := range []struct {
		label string
		of    []statement.Descriptor
	}{{"about", s.Subject}, {"made from", made.ResolvedDependencies}} {
		for _, d := range group.of {
			for alg, digest := range d.Digest {
				fmt.Fprintf(o.out, "%-10s%s %s:%s\n", group.label, d.URI+d.Name, alg, digest)
			}
		}
	}
}
