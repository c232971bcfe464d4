// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"portcullis/engine/policytext"
	"portcullis/measure/evidence"
	"portcullis/measure/rim"
)

func newDigest() *cobra.Command {
	var source digestSource
	var format string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "digest [--initdata] FILE",
		Short: "Print what binds a policy or initdata to the hardware",
		Long: `Print the digest of FILE, a policy, and what a launcher or verifier makes of it: SNP HOST_DATA, TDX MRCONFIGID, and PCR 8 of a
vTPM after one extend, in each bank. The digest is over the exact bytes: a line end more or less gives another one.

FILE may be a manifest: then what its annotation holds is digested. "-" is standard input. With --initdata FILE is an initdata
document, as TOML or as the value of its pod annotation; its digest is over the TOML's bytes, with the algorithm that it names. What
it would be with a line feed less or more at the end is told too: documentation and tools differ in that.

--format rvps prints a message for the reference value provider of Trustee, and corim an unsigned CoRIM (CBOR), both with HOST_DATA,
MRCONFIGID, PCR 8, the digest, and that of the rules.

Exit code 1: no guest takes FILE, whatever binds it. It is compiled, as a guest does.`,
		Example: `  policyctl digest policy.rego
  policyctl digest --initdata --json initdata.toml | jq -r .hostdata.base64
  policyctl digest --format rvps pod.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if asJSON {
				format = "json"
			}
			source.path = args[0]
			if !cmd.Flags().Changed("alg") {
				source.alg = ""
			}
			print, ok := map[string]func(io.Writer, boundText) error{"text": printDigest, "json": printDigestJSON, "rvps": printRVPS, "corim": printCoRIM}[format]
			if !ok {
				return usageError(fmt.Errorf("--format %.20q: want text, json, rvps or corim", format))
			}
			b, notes, err := source.read(cmd.Context(), cmd.InOrStdin())
			if err != nil {
				return err
			}
			for _, note := range notes {
				fmt.Fprintln(cmd.ErrOrStderr(), "note:", note)
			}
			return print(cmd.OutOrStdout(), b)
		},
	}
	cmd.Flags().BoolVar(&source.isInitdata, "initdata", false, "FILE is an initdata document")
	cmd.Flags().StringVar(&source.alg, "alg", "sha256", "`hash` of the policy: sha256, sha384 or sha512; a vTPM takes sha256 only")
	cmd.Flags().StringVar(&format, "format", "text", "`form` of what is printed: text, json, rvps or corim")
	cmd.Flags().BoolVar(&asJSON, "json", false, "the same as --format json")
	return cmd
}

func printDigestJSON(out io.Writer, b boundText) error {
	expected, err := evidence.Expect(b.Bound)
	if err != nil {
		return err
	}
	return writeJSON(out, struct {
		Kind string `json:"kind"`
		Size int    `json:"size"`
		evidence.Expected
	}{b.Kind, b.Size, expected})
}

// referenceValues are what verifier services compare with.
func referenceValues(b boundText) ([]rim.Value, error) {
	expected, err := evidence.Expect(b.Bound)
	if err != nil {
		return nil, err
	}
	hostdata, err := hex.DecodeString(expected.HostData.Hex)
	if err != nil {
		return nil, err
	}
	mrconfigid, err := hex.DecodeString(expected.MRConfigID.Hex)
	if err != nil {
		return nil, err
	}
	values := []rim.Value{{Model: "snp", Key: "hostdata", Raw: hostdata}, {Model: "tdx", Key: "mrconfigid", Raw: mrconfigid},
		{Model: b.Kind, Key: "digest", Digests: []rim.Digest{{Alg: b.Alg, Value: b.Digest}}}}
	pcr := rim.Value{Model: "tpm", Key: "pcr8"}
	for _, bank := range []string{"sha256", "sha384", "sha512"} { // the registry of digests has no SHA-1
		if text, ok := expected.PCR[bank]; ok {
			value, err := hex.DecodeString(text)
			if err != nil {
				return nil, err
			}
			pcr.Digests = append(pcr.Digests, rim.Digest{Alg: bank, Value: value})
		}
	}
	if len(pcr.Digests) > 0 {
		values = append(values, pcr)
	}
	if parts, err := policytext.Split(b.policy); err == nil { // else it is another's policy, of one part
		values = append(values, rim.Value{Model: "policy", Key: "rules", Digests: []rim.Digest{{Alg: "sha256", Value: parts.Digest[:]}}})
	}
	return values, nil
}

func printRVPS(out io.Writer, b boundText) error {
	values, err := referenceValues(b)
	if err != nil {
		return err
	}
	message, err := rim.RVPS(values)
	if err != nil {
		return err
	}
	_, err = out.Write(message)
	return err
}

func printCoRIM(out io.Writer, b boundText) error {
	values, err := referenceValues(b)
	if err != nil {
		return err
	}
	corim, err := rim.CoRIM(fmt.Sprintf("portcullis-%x", b.Digest[:16]), values)
	if err != nil {
		return err
	}
	_, err = out.Write(corim)
	return err
}

func printDigest(out io.Writer, b boundText) error {
	expected, err := evidence.Expect(b.Bound)
	if err != nil {
		return err
	}
	line := func(label, form, value string) { fmt.Fprintf(out, "%-12s%-8s%s\n", label, form, value) }
	line(b.Kind, b.Alg, expected.Digest.Hex)
	if b.otherEnd != nil {
		with := map[bool]string{true: "with", false: "without"}
		fmt.Fprintf(out, "%-12s%d bytes, %s a line feed at the end; %s it %x\n", "", b.Size, with[b.lineFeed], with[!b.lineFeed], b.otherEnd)
	}
	line("HOSTDATA", "hex", expected.HostData.Hex)
	line("", "base64", expected.HostData.Base64)
	line("MRCONFIGID", "hex", expected.MRConfigID.Hex)
	line("", "base64", expected.MRConfigID.Base64)
	label := "PCR 8"
	for _, bank := range []string{"sha1", "sha256", "sha384", "sha512"} {
		if v, ok := expected.PCR[bank]; ok {
			line(label, bank, v)
			label = ""
		}
	}
	if len(expected.PCR) == 0 {
		line("PCR 8", "none", "a vTPM takes sha256 only")
	}
	return nil
}

// writeJSON prints v as indented JSON.
func writeJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// writeLine prints v as JSON on one line.
func writeLine(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
