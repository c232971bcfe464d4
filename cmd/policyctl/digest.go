package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"portcullis/measure/evidence"
)

func newDigest() *cobra.Command {
	var isInitdata, asJSON bool
	var alg string
	cmd := &cobra.Command{
		Use:   "digest [--initdata] FILE",
		Short: "Print what binds a policy or initdata to the hardware",
		Long: `Print the digest of FILE, a policy, and what a launcher or verifier makes of it: SNP HOST_DATA, TDX MRCONFIGID, and PCR 8 of a
vTPM after one extend, in each bank. The digest is over the exact bytes: a line end more or less gives another one.

With --initdata FILE is an initdata document, as TOML or as the value of its pod annotation. Its digest is over the TOML's
bytes, with the algorithm that it names.

Exit code 1: a guest would refuse FILE whatever binds it.`,
		Example: `  policyctl digest policy.rego
  policyctl digest --initdata --json initdata.toml | jq -r .hostdata.base64`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			read := func() (boundText, error) { return readBoundPolicy(args[0], alg) }
			if isInitdata {
				if cmd.Flags().Changed("alg") {
					return usageError(errors.New("--alg is for a policy; initdata names its own algorithm"))
				}
				read = func() (boundText, error) { return readBoundInitdata(args[0]) }
			}
			b, err := read()
			if err != nil {
				return err
			}
			return printDigest(cmd.OutOrStdout(), b, asJSON)
		},
	}
	cmd.Flags().BoolVar(&isInitdata, "initdata", false, "FILE is an initdata document")
	cmd.Flags().StringVar(&alg, "alg", "sha256", "`hash` of the policy: sha256, sha384 or sha512; a vTPM takes sha256 only")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printDigest(out io.Writer, b boundText, asJSON bool) error {
	expected, err := evidence.Expect(b.Bound)
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(out, struct {
			Kind string `json:"kind"`
			Size int    `json:"size"`
			evidence.Expected
		}{b.Kind, b.Size, expected})
	}
	line := func(label, form, value string) { fmt.Fprintf(out, "%-12s%-8s%s\n", label, form, value) }
	line(b.Kind, b.Alg, expected.Digest.Hex)
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
