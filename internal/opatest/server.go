// SPDX-License-Identifier: Apache-2.0

package opatest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Server is a real OPA, asked as agents of the sidecar era do.
type Server struct {
	testing.TB
	http http.Client
}

// Start runs OPA on a socket of its own until the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	binary := Binary(t)
	socket := filepath.Join(t.TempDir(), "s")
	cmd := exec.Command(binary, "run", "--server", "--v0-compatible", "--skip-version-check", "--log-level", "error", "--addr", "unix://"+socket)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	s := &Server{t, http.Client{Transport: &http.Transport{DialContext: dial}}}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if resp, err := s.http.Get("http://opa/health"); err == nil {
			resp.Body.Close()
			return s
		}
		if time.Now().After(deadline) {
			t.Fatal("OPA does not answer")
		}
	}
}

// For is the same server for another test.
func (s *Server) For(t testing.TB) *Server { return &Server{t, s.http} }

// Call makes a request of the REST API, and fails the test unless it succeeds.
func (s *Server) Call(method, path string, body []byte) []byte {
	s.Helper()
	req, err := http.NewRequest(method, "http://opa"+path, bytes.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		s.Fatalf("%s %s: %s: %.500s (%v)", method, path, resp.Status, text, err)
	}
	return text
}

// Load replaces the policy, and its state by an empty one.
func (s *Server) Load(policy []byte) {
	s.Helper()
	s.Call("PUT", "/v1/policies/agent_policy", policy)
	s.Reset()
}

// Reset replaces the state by an empty one.
func (s *Server) Reset() {
	s.Helper()
	s.Call("PUT", "/v1/data/pstate", []byte("{}"))
}

// Decide asks for a request, whose input is JSON, and returns the decision with its ops, as they came.
func (s *Server) Decide(kind string, input []byte) (allowed bool, ops json.RawMessage) {
	s.Helper()
	body := append(append([]byte(`{"input":`), input...), '}')
	var answer struct{ Result json.RawMessage }
	s.Read(s.Call("POST", "/v1/data/agent_policy/"+kind, body), &answer)
	if len(answer.Result) > 0 && answer.Result[0] == '{' {
		var object struct {
			Allowed bool
			Ops     json.RawMessage
		}
		s.Read(answer.Result, &object)
		return object.Allowed, object.Ops
	}
	return string(answer.Result) == "true", nil
}

// Apply changes the state by the ops of a decision.
func (s *Server) Apply(ops json.RawMessage) {
	s.Helper()
	if len(ops) > 0 {
		s.Call("PATCH", "/v1/data", ops)
	}
}

// Read decodes what OPA said.
func (s *Server) Read(text []byte, into any) {
	s.Helper()
	if err := json.Unmarshal(text, into); err != nil {
		s.Fatalf("%.500s: %v", text, err)
	}
}
