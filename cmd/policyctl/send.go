// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto"
	"portcullis/agentproto/agentpb"
	"portcullis/engine"
	"portcullis/engine/gate"
	"portcullis/engine/trace"
	"portcullis/internal/strictjson"
)

func newSend() *cobra.Command {
	var address string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "send --address ADDR [FILE]",
		Short: "Send recorded requests to a live gate or agent",
		Long: `Send the requests of FILE, or of standard input, over ttrpc to a gate or an agent, one after the other, and print what it
answers: a line for each request, below it the answer as JSON where it says anything. FILE has the formats that replay reads.
Bytes may be an array of numbers, a text, or {"base64": "..."}.

ADDR is unix:///path or vsock://CID:PORT. Recorded files come without their contents, except for the target of a link, and are
sent as empty files.

Exit code 1: a request was refused, or answered otherwise than the record says.`,
		Example: `  policyctl send --address unix:///run/portcullis/gate.sock requests.jsonl
  policyctl send --address vsock://3:1024 requests.jsonl`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := openInput(args, cmd.InOrStdin())
			if err != nil {
				return err
			}
			defer in.Close()
			if address == "" {
				return usageError(errors.New("--address is required"))
			}
			client, err := connect(cmd.Context(), address)
			if err != nil {
				return err
			}
			defer client.Close()
			s := sender{client: client, timeout: timeout, out: cmd.OutOrStdout()}
			return s.run(cmd.Context(), in)
		},
	}
	cmd.Flags().StringVar(&address, "address", "", "where the gate or agent listens, unix:///path or vsock://CID:PORT")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long one answer may take")
	return cmd
}

// connect dials a gate or an agent.
func connect(ctx context.Context, address string) (*ttrpc.Client, error) {
	log.L.Logger.SetOutput(io.Discard) // ttrpc's own log
	a, err := gate.ParseAddress(address)
	if err != nil {
		return nil, usageError(err)
	}
	conn, err := a.Dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", a, err)
	}
	return ttrpc.NewClient(conn), nil
}

// sender sends recorded requests.
type sender struct {
	client  *ttrpc.Client
	timeout time.Duration
	out     io.Writer

	ok, refused, mismatches int
}

func (s *sender) run(ctx context.Context, in io.Reader) error {
	if err := eachRecord(ctx, in, nil, s.one); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "%s: %d allowed, %d denied, %s\n", count(s.ok+s.refused, "request", "requests"), s.ok, s.refused, count(s.mismatches, "mismatch", "mismatches"))
	if s.refused > 0 || s.mismatches > 0 {
		return errNo
	}
	return nil
}

// one sends one request. A denial by the policy is an answer; an agent that cannot carry a request out has let it pass.
func (s *sender) one(ctx context.Context, record trace.Record) error {
	m, request, err := messageOf(record)
	if err != nil {
		return fmt.Errorf("line %d: %w", record.Line, err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	answer := m.Response.New().Interface()
	err = s.client.Call(ctx, m.Service, m.Name, request, answer)
	allowed := status.Code(err) != codes.PermissionDenied
	switch _, answered := status.FromError(err); {
	case !answered:
		return fmt.Errorf("%s: %w", record.Kind, err)
	case err == nil:
		fmt.Fprintf(s.out, "ALLOW %s%s\n%s", record.Kind, detail(record.Case, ""), said(answer))
	case allowed:
		fmt.Fprintf(s.out, "ALLOW %s%s\n", record.Kind, detail(record.Case, "but the agent says "+status.Convert(err).Message()))
	default:
		fmt.Fprintf(s.out, "DENY %s%s\n", record.Kind, detail(record.Case, status.Convert(err).Message()))
	}
	if allowed {
		s.ok++
	} else {
		s.refused++
	}
	if record.Allowed != nil && *record.Allowed != allowed {
		s.mismatches++
		fmt.Fprintf(s.out, "  MISMATCH: the record says allowed = %t\n", *record.Allowed)
	}
	return nil
}

// said is what an answer says, on an indented line; nothing for an answer that says nothing.
func said(answer proto.Message) string {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(answer)
	if err != nil {
		return fmt.Sprintf("  answer: cannot be shown: %v\n", err)
	}
	// protojson puts spaces in at random, so that nobody compares its text.
	var line bytes.Buffer
	if err := json.Compact(&line, text); err != nil || line.String() == "{}" {
		return ""
	}
	return fmt.Sprintf("  answer: %s\n", engine.OneLine(line.String(), maxAnswer))
}

// maxAnswer bounds one answer on the terminal, in bytes.
const maxAnswer = 4 << 10

// messageOf turns a record into a call: the first method that takes such a request.
func messageOf(record trace.Record) (agentproto.Method, proto.Message, error) {
	for _, m := range agentproto.Methods() {
		if m.EntryPoint() != record.Kind {
			continue
		}
		fields, err := withoutContents(record)
		if err != nil {
			return m, nil, err
		}
		request, err := agentproto.FromInput(m.Request, fields)
		if file, ok := request.(*agentpb.CopyFileRequest); ok && err == nil && file.GetData() == nil {
			file.FileSize = 0 // the contents were not recorded: an empty file is a whole one
		}
		return m, request, err
	}
	return agentproto.Method{}, nil, fmt.Errorf("the agent's API has no request %s", record.Kind)
}

// withoutContents leaves out what a recording says of a file's data: the request has no such fields, the gate makes them for the
// policy.
func withoutContents(record trace.Record) (json.RawMessage, error) {
	if record.Kind != "CopyFileRequest" {
		return record.Request, nil
	}
	var fields map[string]json.RawMessage
	if err := strictjson.Unmarshal(record.Request, &fields); err != nil {
		return nil, err
	}
	delete(fields, "data_sha256")
	delete(fields, "data_size")
	return json.Marshal(fields)
}
