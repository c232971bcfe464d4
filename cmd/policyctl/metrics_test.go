// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"portcullis/engine/binding"
)

// statusServer answers on a socket as policyd does, with what status gives.
func statusServer(t *testing.T, status func() binding.Status) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "status.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = json.NewEncoder(conn).Encode(status())
			conn.Close()
		}
	}()
	return path
}

func TestMetricsArePrometheusText(t *testing.T) {
	s := binding.Status{State: binding.StateActive, Generation: 2, Policy: "abc", Requests: []binding.RequestCount{
		{Request: "ExecProcessRequest", Allowed: 3, Denied: 1, Seconds: 0.5, Within: []uint64{0, 1, 2, 3, 3, 3, 3, 3, 4, 4}},
	}}
	s.Version, s.Mode, s.Backend, s.Binding = `1"2`, "required", "snp", "policy"
	socket := statusServer(t, func() binding.Status { return s })
	got := must(t, "metrics", "--socket", socket)
	for _, want := range []string{
		`portcullis_info{version="1\"2",mode="required",backend="snp",binding="policy",policy_sha256="abc"} 1`,
		`portcullis_state{state="active"} 1`,
		`portcullis_state{state="denied"} 0`,
		`portcullis_activations_total 2`,
		`portcullis_decisions_total{request="ExecProcessRequest",decision="allow"} 3`,
		`portcullis_decisions_total{request="ExecProcessRequest",decision="deny"} 1`,
		`portcullis_decision_seconds_bucket{request="ExecProcessRequest",le="0.0005"} 1`,
		`portcullis_decision_seconds_bucket{request="ExecProcessRequest",le="+Inf"} 4`,
		`portcullis_decision_seconds_sum{request="ExecProcessRequest"} 0.5`,
		`portcullis_decision_seconds_count{request="ExecProcessRequest"} 4`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no line %s in\n%s", want, got)
		}
	}
	for line := range strings.Lines(got) {
		name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE "), " ")
		name, _, _ = strings.Cut(name, "{")
		if !strings.HasPrefix(name, "portcullis_") {
			t.Errorf("a line of something else: %s", line)
		}
	}
	if _, said, code := policyctl("metrics", "--socket", socket+".none"); code != exitFail || !strings.HasPrefix(said, "policyctl: read status of policyd: ") {
		t.Errorf("without policyd: exit code %d, %q", code, said)
	}
}

// lockedText is written by one goroutine and read by another.
type lockedText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A status is printed once as long as it stays the same, and again when it changes.
func TestStatusIsWatched(t *testing.T) {
	var mu sync.Mutex
	state, asked := binding.StateDefault, 0
	socket := statusServer(t, func() binding.Status {
		mu.Lock()
		defer mu.Unlock()
		if asked++; asked > 3 {
			state = binding.StateActive
		}
		return binding.Status{State: state}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var out lockedText
	done := make(chan int)
	go func() {
		done <- run(ctx, []string{"status", "--watch", "--interval", "10ms", "--socket", socket}, stdio{strings.NewReader(""), &out, &out})
	}()
	for ctx.Err() == nil && !strings.Contains(out.String(), "active") {
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	if code := <-done; code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if got := out.String(); strings.Count(got, "state       default") != 1 || strings.Count(got, "state       active") != 1 {
		t.Errorf("printed\n%s", got)
	}
}
