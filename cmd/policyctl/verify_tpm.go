// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"portcullis/internal/strictjson"
	"portcullis/measure/evidence"
)

// tpmFiles are the files of a TPM's evidence.
type tpmFiles struct {
	quote, signature, ak, pcrs, log                   string
	akCert, akRoots, hcl, hclCerts, challenge, answer string
	earlier, earlierDigest                            []string // what may have ruled before
}

func newVerifyTPM() *cobra.Command {
	var f verifyFlags
	var p tpmFiles
	var pcr, podPCR uint32
	var trustAK bool
	cmd := &cobra.Command{
		Use:   "tpm --quote F --signature F --ak F [--log F] (--policy F | --initdata F) --nonce HEX",
		Short: "Verify a TPM quote and its event log",
		Long: `Verify a quote of a TPM, as tpm2_quote writes it, that covers the sha256 bank of the register.

Without --log the register must hold one measurement. With it, every event is judged: a policy that ruled before this one must be
among --earlier and --earlier-digest; where neither is given it makes the result unknown, exit code 3. So does a fragment that updated
the policy and is not among --fragment and --fragment-digest. A quote says who signed it, not that a TPM did: give the key's
certificate (--ak-cert), an answered challenge (--challenge, --answer), or the report of an Azure paravisor (--hcl) with what the
paravisor's measurement or signer must be (--measurement, --id-key, --reference); else the
result is unknown, ak-unbound, exit code 3. --trust-ak takes the key without proof.

With --pod the record of the pod's life, in the same log and in a register that the quote covers too, is replayed: which containers
run, in which order they were made, what was executed, whether the pod is complete.

Exit codes: 0 every check passed, 1 a check said no, 3 none said no but one could not be made.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, nonce, o, err := f.claim(cmd.Context())
			if err != nil {
				return err
			}
			e := evidence.TPM{Nonce: nonce, PCR: pcr, Bound: b.Bound}
			if err := p.read(&e); err != nil {
				return err
			}
			if p.hcl == "" && f.reference.launch() {
				return usageError(errors.New("--measurement and --id-key are of the paravisor in --hcl"))
			}
			if e.Pod, _, err = f.pod.expected(cmd.Context()); err != nil {
				return err
			}
			if e.PodPCR = podPCR; e.Pod != nil && e.Log == nil {
				return usageError(errors.New("--pod needs --log"))
			}
			if err := f.readFragments(b, &e); err != nil {
				return err
			}
			o.TrustAK = trustAK
			if o.AKRoots, err = pool(p.akRoots); err != nil {
				return err
			}
			return f.conclude(cmd.OutOrStdout(), evidence.VerifyTPM(cmd.Context(), e, o), e.Bound)
		},
	}
	f.add(cmd)
	f.addNetwork(cmd)
	f.pod.add(cmd, false)
	f.reference.addSNP(cmd, "with --hcl, the paravisor's")
	cmd.Flags().Uint32Var(&podPCR, "pod-pcr", 14, "the `register` of the pod's life, with --pod")
	cmd.Flags().Uint32Var(&pcr, "pcr", 8, "the `register`")
	cmd.Flags().BoolVar(&trustAK, "trust-ak", false, "take the attestation key without proof that a TPM holds it")
	p.add(cmd)
	return cmd
}

// add has the flags that name files.
func (p *tpmFiles) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&p.earlier, "earlier", nil, "policy or initdata `file` that may have ruled before; may be repeated")
	flags.StringArrayVar(&p.earlierDigest, "earlier-digest", nil, "its sha256 digest, `hexadecimal`, may be repeated")
	flags.StringVar(&p.quote, "quote", "", "the quoted message (tpm2_quote -m), a `file`")
	flags.StringVar(&p.signature, "signature", "", "its signature (tpm2_quote -s), a `file`")
	flags.StringVar(&p.ak, "ak", "", "the attestation key's public part, a `file`: PEM, TPM2B_PUBLIC or TPMT_PUBLIC")
	flags.StringVar(&p.pcrs, "pcrs", "", "the quoted values (tpm2_quote -o), a `file`; needed when more registers are quoted")
	flags.StringVar(&p.log, "log", "", "policyd's event log, a `file`")
	flags.StringVar(&p.akCert, "ak-cert", "", "the attestation key's certificate chain, a `file`")
	flags.StringVar(&p.akRoots, "ak-roots", "", "PEM `file` of roots for --ak-cert and --challenge")
	flags.StringVar(&p.challenge, "challenge", "", "what policyctl verify challenge printed, a `file`")
	flags.StringVar(&p.answer, "answer", "", "the TPM's answer to it (tpm2_activatecredential -o), a `file`")
	flags.StringVar(&p.hcl, "hcl", "", "report of an Azure paravisor (NV index 0x01400001), a `file`")
	flags.StringVar(&p.hclCerts, "hcl-certs", "", "`file` with the VCEK certificate of that report")
	required(cmd, "quote", "signature", "ak")
}

func (p tpmFiles) read(e *evidence.TPM) error {
	var challenge []byte
	for _, f := range []struct {
		path string
		into *[]byte
	}{
		{p.quote, &e.Quote}, {p.signature, &e.Signature}, {p.ak, &e.AK}, {p.pcrs, &e.PCRs}, {p.log, &e.Log},
		{p.akCert, &e.Key.AKCert}, {p.hcl, &e.Key.HCL}, {p.hclCerts, &e.Key.HCLCerts},
		{p.challenge, &challenge}, {p.answer, &e.Key.Answer},
	} {
		if err := optional(f.path, f.into); err != nil {
			return err
		}
	}
	if err := p.readEarlier(e); err != nil {
		return err
	}
	if challenge == nil {
		return nil
	}
	e.Key.Challenge = new(evidence.Challenge)
	if err := strictjson.Unmarshal(challenge, e.Key.Challenge); err != nil {
		return fmt.Errorf("--challenge: %w", err)
	}
	return nil
}

// readEarlier takes the digests of what may have ruled before.
func (p tpmFiles) readEarlier(e *evidence.TPM) error {
	for _, path := range p.earlier {
		b, err := readBound(path)
		if err != nil {
			return err
		}
		if b.Alg != "sha256" {
			return usageError(fmt.Errorf("--earlier %s: a register takes sha256, the document names %s", path, b.Alg))
		}
		e.Earlier = append(e.Earlier, b.Digest)
	}
	for _, text := range p.earlierDigest {
		digest, err := hex.DecodeString(text)
		if err != nil || len(digest) != sha256.Size {
			return usageError(fmt.Errorf("--earlier-digest %.80q: want %d hexadecimal digits", text, 2*sha256.Size))
		}
		e.Earlier = append(e.Earlier, digest)
	}
	return nil
}

func newVerifyChallenge() *cobra.Command {
	var cert, ak, credential string
	cmd := &cobra.Command{
		Use:   "challenge --ek-cert F --ak F --credential F",
		Short: "Ask a TPM to show that it holds an attestation key",
		Long: `Make a challenge that only the TPM with the endorsement certificate can answer, and only if it holds the attestation key. The
credential goes to the guest, for tpm2_activatecredential -i; what is printed stays with you, for verify tpm --challenge.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var certificate, key []byte
			if err := optional(cert, &certificate); err != nil {
				return err
			}
			if err := optional(ak, &key); err != nil {
				return err
			}
			c, err := evidence.NewChallenge(rand.Reader, certificate, key)
			if err != nil {
				return err
			}
			if err := os.WriteFile(credential, c.Credential, 0o600); err != nil {
				return err
			}
			return writeJSON(cmd.OutOrStdout(), c)
		},
	}
	cmd.Flags().StringVar(&cert, "ek-cert", "", "the endorsement certificate with its intermediates, a `file`")
	cmd.Flags().StringVar(&ak, "ak", "", "the attestation key's public part, a `file`: TPM2B_PUBLIC or TPMT_PUBLIC")
	cmd.Flags().StringVar(&credential, "credential", "", "`file` to write the credential to")
	required(cmd, "ek-cert", "ak", "credential")
	return cmd
}
