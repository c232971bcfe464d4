// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/spf13/cobra"

	"portcullis/agentproto"
)

// maxWire is the largest request that ttrpc carries, in bytes; twice that in hex.
const maxWire = 4 << 20

func newInput() *cobra.Command {
	var asHex bool
	cmd := &cobra.Command{
		Use:   "input MESSAGE [FILE]",
		Short: "Show the input a policy sees for an encoded request",
		Long: `Decode a protobuf request of type MESSAGE, as grpc.CreateContainerRequest or CreateContainerRequest, from FILE or standard
input, and print as JSON the input that a policy sees for it. All bytes are shown, also those that a policy in the guest does
not get because it cannot reach them.

Exit code 1: the request holds a field that the agent's API does not have, and would be refused.`,
		Example: `  policyctl input CreateContainerRequest request.bin
  echo 0a027331 | policyctl input --hex StartContainerRequest`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := openInput(args[1:], cmd.InOrStdin())
			if err != nil {
				return err
			}
			defer in.Close()
			return printInput(cmd.OutOrStdout(), in, args[0], asHex)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, m := range agentproto.Methods() {
				names = append(names, m.EntryPoint())
			}
			return names, cobra.ShellCompDirectiveDefault
		},
	}
	cmd.Flags().BoolVar(&asHex, "hex", false, "FILE holds hexadecimal digits")
	return cmd
}

func printInput(out io.Writer, in io.Reader, name string, asHex bool) error {
	mt, ok := agentproto.MessageByName(name)
	if !ok {
		return usageError(fmt.Errorf("the agent's API has no message %q", name))
	}
	wire, err := io.ReadAll(io.LimitReader(in, 2*maxWire+1))
	if err != nil {
		return err
	}
	if asHex {
		if wire, err = hex.DecodeString(string(bytes.TrimSpace(wire))); err != nil {
			return usageError(fmt.Errorf("decode hexadecimal: %w", err))
		}
	}
	if len(wire) > maxWire {
		return usageError(fmt.Errorf("request is longer than %d bytes", maxWire))
	}
	message, err := agentproto.Decode(mt, wire)
	if err != nil {
		return &exitError{exitNo, err}
	}
	input, err := agentproto.Input(message)
	if err != nil {
		return &exitError{exitNo, err}
	}
	plain, err := ast.JSON(input)
	if err != nil {
		return err
	}
	return writeJSON(out, plain)
}
