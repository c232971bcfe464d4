// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"portcullis/agentproto/agentpb"
	"portcullis/engine"
	"portcullis/engine/fragment"
	"portcullis/engine/trace"
	"portcullis/internal/bounded"
)

func newSetPolicy() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "set-policy ADDR FILE",
		Short: "Set the policy of a live gate by hand",
		Long: `Send the policy in FILE, or in standard input if FILE is "-", to a gate as the runtime does, with SetPolicy. The bytes are
sent as they are, since their digest is what the guest compares; they are not compiled here first. FILE may be a fragment: see
policyctl fragment.

ADDR is unix:///path or vsock://CID:PORT. Setting the policy that is active already changes nothing.

Exit code 1: the gate refused the policy, for the reason that is printed. 3: it could not be asked.`,
		Example: `  genpolicy -r -y pod.yaml >pod.rego
  policyctl set-policy unix:///run/portcullis/gate.sock pod.rego`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readPolicyText(args[1], cmd.InOrStdin())
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return setPolicy(ctx, cmd.OutOrStdout(), args[0], text)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long connecting and the answer may take")
	return cmd
}

// readPolicyText reads a policy of a size that a guest takes.
func readPolicyText(path string, stdin io.Reader) ([]byte, error) {
	in, err := openInput([]string{path}, stdin)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	text, err := bounded.ReadAll(in, engine.MaxText)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	if text, err = sendable(text); err != nil {
		return nil, fmt.Errorf("read fragment: %w", err)
	}
	return text, nil
}

// sendable makes a fragment's envelope the text that SetPolicy takes; any other bytes stay.
func sendable(text []byte) ([]byte, error) {
	if len(text) == 0 || text[0] != 0xd2 { // the tag of a COSE_Sign1; no UTF-8 begins so
		return text, nil
	}
	if _, err := fragment.Open(text); err != nil {
		return nil, err
	}
	return fragment.Text(text), nil
}

// notJudged are the codes of answers that say nothing of the policy.
var notJudged = []codes.Code{codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.Unimplemented}

func setPolicy(ctx context.Context, out io.Writer, address string, text []byte) error {
	client, err := connect(ctx, address)
	if err != nil {
		return err
	}
	defer client.Close()
	method, request, err := messageOf(trace.Record{Kind: "SetPolicyRequest", Request: []byte("{}")})
	if err != nil {
		return err
	}
	request.(*agentpb.SetPolicyRequest).Policy = string(text)
	err = client.Call(ctx, method.Service, method.Name, request, method.Response.New().Interface())
	answer, answered := status.FromError(err)
	switch {
	case err == nil:
		digest := sha256.Sum256(text)
		fmt.Fprintf(out, "ALLOW SetPolicyRequest: sha256 %s is active\n", hex.EncodeToString(digest[:]))
		return nil
	case !answered:
		return fmt.Errorf("set policy: %w", err)
	case slices.Contains(notJudged, answer.Code()):
		return fmt.Errorf("set policy: %s: %s", answer.Code(), engine.OneLine(answer.Message(), maxAnswer))
	}
	fmt.Fprintf(out, "DENY SetPolicyRequest: %s\n", engine.OneLine(answer.Message(), maxAnswer))
	return errNo
}
