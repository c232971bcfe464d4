// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"portcullis/agentproto/agentpb"
	"portcullis/engine/trace"
)

// The log says what the agent made of each request, those that the state follows included, and of a process's end what the policy
// was shown.
func TestDecisionLogHoldsTheAgentsAnswers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	log, err := trace.Open(path, trace.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, rigOptions{policy: onePod, trace: log})
	c := r.client()
	c.must("CreateSandbox", &agentpb.CreateSandboxRequest{SandboxId: "s"})
	r.agent.Fail("CreateContainer", status.New(codes.NotFound, "no such image"))
	if _, err := c.do(context.Background(), "CreateContainer", createContainer("aaa", "pause")); status.Code(err) != codes.NotFound {
		t.Fatalf("the agent's refusal came as %v", err)
	}
	r.agent.Fail("CreateContainer", nil)
	c.must("CreateContainer", createContainer("bbb", "pause"))
	if _, err := c.do(context.Background(), "CreateContainer", createContainer("ccc", "pause")); status.Code(err) != codes.PermissionDenied {
		t.Fatalf("a second container came as %v", err)
	}
	c.must("StartContainer", &agentpb.StartContainerRequest{ContainerId: "bbb"})
	if err := r.agent.Exit("bbb", "", 3); err != nil {
		t.Fatal(err)
	}
	c.must("WaitProcess", &agentpb.WaitProcessRequest{ContainerId: "bbb"})
	c.must("CopyFile", &agentpb.CopyFileRequest{Path: "/run/kata-containers/shared/containers/f", Data: []byte("x"), FileSize: 1, FileMode: 0o100644})
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}

	const want = `CreateSandboxRequest true done
CreateContainerRequest true refused no such image
CreateContainerRequest true done
CreateContainerRequest false 
StartContainerRequest true done
WaitProcessRequest true 
WaitProcessResponse shown "status":3
CopyFileRequest true done "data_sha256":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","data_size":1
`
	if got := answersIn(t, path); got != want {
		t.Errorf("the log says\n%swant\n%s", got, want)
	}
}

// answersIn is a decision log as lines of kind, decision and answer.
func answersIn(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	reader := trace.NewReader(f)
	reader.Observations = true
	var out strings.Builder
	for {
		record, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return out.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString(record.Kind)
		switch {
		case record.Observed:
			out.WriteString(" shown")
		case *record.Allowed:
			out.WriteString(" true " + string(record.Agent))
		default:
			out.WriteString(" false ")
		}
		if record.Error != "" {
			out.WriteString(" " + status.Convert(errors.New(record.Error)).Message()[strings.Index(record.Error, "no such"):])
		}
		for _, part := range []string{`"data_sha256":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","data_size":1`, `"status":3`} {
			if strings.Contains(string(record.Request), part) {
				out.WriteString(" " + part)
			}
		}
		out.WriteString("\n")
	}
}
