// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/go-sev-guest/verify/trust"
	"github.com/spf13/cobra"

	"portcullis/internal/bounded"
	"portcullis/measure/evidence"
	"portcullis/rules/review"
)

// maxEvidence is the largest file of evidence or certificates, in bytes.
const maxEvidence = 4 << 20

func newVerify() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify snp|tdx|tpm|challenge",
		Short: "Hold a guest's evidence against a policy or initdata",
		Long: `Verify, outside the guest, an SNP report, a TDX quote, or a TPM quote with its event log: who signed it, whether it answers
this nonce, and whether the policy or initdata given is what is bound.

A policy that is bound says nothing about the guest that it is bound in: give the values that the guest's firmware, kernel and root
filesystem must have (--measurement, --id-key, --rtmr, --reference). Without them the result is unknown.

Exit codes: 0 every check passed, 1 a check said no, 3 none said no but one could not be made, such as for want of a certificate.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError(errors.New("say what to verify: snp, tdx or tpm; see policyctl verify --help"))
		},
	}
	cmd.AddCommand(newVerifySNP(), newVerifyTDX(), newVerifyTPM(), newVerifyChallenge())
	return cmd
}

// verifyFlags are what all kinds of evidence have in common.
type verifyFlags struct {
	policy, initdata, alg string
	nonce, at             string
	fetch, allowDebug     bool
	asJSON                bool
	reference             referenceFlags
	pod                   podFlags
	updates               fragmentFlags
}

func (f *verifyFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.policy, "policy", "", "policy `file` that is to be bound, or a manifest whose annotation holds it")
	flags.StringVar(&f.initdata, "initdata", "", "initdata `file` that is to be bound, or a manifest whose annotation holds it")
	flags.StringVar(&f.alg, "alg", "sha256", "`hash` of the policy: sha256, sha384 or sha512")
	flags.StringVar(&f.nonce, "nonce", "", "what you sent, `hexadecimal`; without it the evidence may be old")
	flags.StringVar(&f.at, "at", "", "`time` at which certificates must be valid, as 2026-01-31T12:00:00Z (default now)")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON")
	f.updates.add(cmd)
}

func (f *verifyFlags) addNetwork(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.fetch, "fetch", false, "download missing certificates, revocation lists and TCB status from the vendor")
	cmd.Flags().BoolVar(&f.allowDebug, "allow-debug", false, "accept a guest whose memory its host can read and write")
}

// claim reads what is to be bound, the nonce and the options.
func (f *verifyFlags) claim(ctx context.Context) (b boundText, nonce []byte, o evidence.Options, err error) {
	o = evidence.Options{Fetch: f.fetch, AllowDebug: f.allowDebug}
	if o.Reference, err = f.reference.read(); err != nil {
		return b, nil, o, err
	}
	if f.pod.pod == "" && (f.policy == "") == (f.initdata == "") || f.policy != "" && f.initdata != "" {
		return b, nil, o, usageError(errors.New("give one of --policy and --initdata, or --pod"))
	}
	if nonce, err = hex.DecodeString(f.nonce); err != nil {
		return b, nil, o, usageError(fmt.Errorf("--nonce: want hexadecimal digits, two for each byte: %w", err))
	}
	if f.at != "" {
		if o.Now, err = time.Parse(time.RFC3339, f.at); err != nil {
			return b, nil, o, usageError(fmt.Errorf("--at: %q: want a time as 2026-01-31T12:00:00Z", f.at))
		}
	}
	switch {
	case f.policy != "":
		b, err = readBoundPolicy(f.policy, f.alg)
	case f.initdata != "":
		b, err = readBoundInitdata(f.initdata)
	default:
		_, b, err = f.pod.expected(ctx)
	}
	if err == nil {
		err = f.samePolicy(ctx, b)
	}
	return b, nonce, o, err
}

// samePolicy refuses to hold the pod's life against another policy than the one that is to be bound.
func (f *verifyFlags) samePolicy(ctx context.Context, b boundText) error {
	pod, of, err := f.pod.expected(ctx)
	if err != nil || pod == nil || b.policy == nil || bytes.Equal(b.policy, of.policy) {
		return err
	}
	return usageError(fmt.Errorf("--pod %s has another policy than what is to be bound; give --pod alone, or that policy", f.pod.pod))
}

// required marks flags as required; cobra's own error has another exit code.
func required(cmd *cobra.Command, names ...string) {
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		for _, name := range names {
			if !cmd.Flags().Changed(name) {
				return usageError(fmt.Errorf("--%s is required; see %s --help", name, cmd.CommandPath()))
			}
		}
		return nil
	}
}

func newVerifySNP() *cobra.Command {
	var f verifyFlags
	var report, certs, roots, product string
	cmd := &cobra.Command{
		Use:   "snp --report F (--policy F | --initdata F) --nonce HEX --measurement HEX",
		Short: "Verify an SEV-SNP attestation report",
		Long: `Verify an SEV-SNP attestation report: AMD's signature over it, the nonce, the policy or initdata in HOST_DATA, and the guest that it is of,
by --measurement, --id-key or --reference. Certificates are read from --certs, or asked for with --fetch.

Exit codes: 0 every check passed, 1 a check said no, 3 none said no but one could not be made.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, nonce, o, err := f.claim(cmd.Context())
			if err != nil {
				return err
			}
			e := evidence.SNP{Bound: b.Bound, Nonce: nonce}
			if e.Report, err = bounded.ReadFile(report, maxEvidence); err != nil {
				return err
			}
			if err := optional(certs, &e.Certs); err != nil {
				return err
			}
			if roots != "" {
				r := trust.AMDRootCertsProduct(product)
				if err := r.FromKDSCert(roots); err != nil {
					return fmt.Errorf("--roots: %w", err)
				}
				o.SNPRoots = map[string][]*trust.AMDRootCerts{product: {r}}
			}
			var updates evidence.Fragments
			if e.Record, updates, err = f.signed(cmd.Context(), b); err != nil {
				return err
			}
			e.Policy = updates.Policy
			return f.conclude(cmd.OutOrStdout(), evidence.VerifySNP(cmd.Context(), e, o), e.Bound)
		},
	}
	f.add(cmd)
	f.addNetwork(cmd)
	f.reference.addSNP(cmd, "the guest's")
	f.pod.add(cmd, true)
	cmd.Flags().StringVar(&report, "report", "", "the report, a `file` of 1184 bytes")
	cmd.Flags().StringVar(&certs, "certs", "", "`file` with the VCEK or VLEK certificate: DER, PEM, or an extended report's table")
	cmd.Flags().StringVar(&roots, "roots", "", "`file` with ASK and ARK as AMD's key server gives them, instead of AMD's built-in ones")
	cmd.Flags().StringVar(&product, "product", "Milan", "product `line` that --roots are of")
	required(cmd, "report")
	return cmd
}

func newVerifyTDX() *cobra.Command {
	var f verifyFlags
	var quote, roots string
	cmd := &cobra.Command{
		Use:   "tdx --quote F (--policy F | --initdata F) --nonce HEX --reference F",
		Short: "Verify a TDX quote",
		Long: `Verify a TDX quote: Intel's signature over it, the nonce, the policy or initdata in MRCONFIGID, and the guest that it is of, by --rtmr
or --reference.

Exit codes: 0 every check passed, 1 a check said no, 3 none said no but one could not be made.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, nonce, o, err := f.claim(cmd.Context())
			if err != nil {
				return err
			}
			e := evidence.TDX{Bound: b.Bound, Nonce: nonce}
			if e.Quote, err = bounded.ReadFile(quote, maxEvidence); err != nil {
				return err
			}
			if o.TDXRoots, err = pool(roots); err != nil {
				return err
			}
			var updates evidence.Fragments
			if e.Record, updates, err = f.signed(cmd.Context(), b); err != nil {
				return err
			}
			e.Policy = updates.Policy
			return f.conclude(cmd.OutOrStdout(), evidence.VerifyTDX(cmd.Context(), e, o), e.Bound)
		},
	}
	f.add(cmd)
	f.addNetwork(cmd)
	f.reference.addTDX(cmd)
	f.pod.add(cmd, true)
	cmd.Flags().StringVar(&quote, "quote", "", "the quote, version 4, in a `file`")
	cmd.Flags().StringVar(&roots, "roots", "", "PEM `file` of roots instead of Intel's built-in one")
	required(cmd, "quote")
	return cmd
}

// optional reads the file at path, if there is a path. What it reads is never nil.
func optional(path string, into *[]byte) error {
	if path == "" {
		return nil
	}
	content, err := bounded.ReadFile(path, maxEvidence)
	if err != nil {
		return err
	}
	*into = append([]byte{}, content...)
	return nil
}

// pool reads root certificates, nil without a path.
func pool(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	text, err := bounded.ReadFile(path, maxEvidence)
	if err != nil {
		return nil, err
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", path)
	}
	return p, nil
}

// conclude prints the result and turns it into the exit code.
func (f *verifyFlags) conclude(out io.Writer, r evidence.Result, b evidence.Bound) error {
	if err := f.pod.writeEAR(out, r, f.nonce, b); err != nil {
		return err
	}
	if f.pod.ear == "-" { // which is the output
	} else if f.asJSON {
		if err := writeJSON(out, r); err != nil {
			return err
		}
	} else {
		printResult(out, r)
	}
	switch r.ExitCode() {
	case exitOK:
		return nil
	case exitNo:
		return errNo
	}
	return &exitError{code: exitFail}
}

func printResult(out io.Writer, r evidence.Result) {
	for _, c := range r.Checks {
		line := fmt.Sprintf("%-8s%-14s", c.Verdict, c.Name)
		if c.Reason != "" {
			line += c.Reason + ": "
		}
		line += c.Detail
		if c.Verdict != evidence.Pass && c.Want != "" {
			if c.Detail != "" {
				line += "; "
			}
			if c.Got != "" {
				line += "got " + c.Got + ", "
			}
			line += "want " + c.Want
		}
		printLine(out, strings.TrimRight(line, " "))
	}
	for _, n := range r.Notes {
		printLine(out, "note    "+n)
	}
	if r.Pod != nil {
		printPod(out, r.Pod)
	}
	if len(r.NotChecked) > 0 {
		printLine(out, "not checked: "+strings.Join(r.NotChecked, ", "))
	}
	fmt.Fprintf(out, "verdict %s\n", r.Verdict)
}

// printLine prints one line whatever is in it: what a log calls its containers is the word of whoever sends it.
func printLine(out io.Writer, line string) { fmt.Fprintln(out, review.Printable(line)) }
