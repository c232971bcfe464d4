// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"portcullis/engine/binding"
	"portcullis/internal/hostdatatest"
)

func TestStatusSocket(t *testing.T) {
	m := newMachine(t, hostdatatest.Guest{SNP: &hostdatatest.SNP{HostData: [32]byte(sum256(podPolicy))}})
	r := m.boot()
	path := m.path("run/status.sock")
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("socket: %v, %v; want mode 0600", st, err)
	}
	text := m.ctl(1, "status", "--socket", path)
	for _, want := range []string{"state       denied", "reason      policy-not-set: ", "mode        required", "backend     snp", "field       hostdata "} {
		if !strings.Contains(text, want) {
			t.Errorf("status lacks %q:\n%s", want, text)
		}
	}
	m.setPolicy(podPolicy, "")
	var s binding.Status
	if err := json.Unmarshal([]byte(m.ctl(0, "status", "--json", "--socket", path)), &s); err != nil {
		t.Fatal(err)
	}
	if s.State != binding.StateActive || s.Binding != "policy" || s.Field.Name != "hostdata" || s.Generation != 2 || s.Policy != s.Field.Value {
		t.Errorf("status %+v", s)
	}
	if strings.Contains(m.ctl(0, "status", "--json", "--socket", path), "agent_policy\\n") {
		t.Error("the status holds policy text")
	}
	r.stop()
	m.ctl(3, "status", "--socket", path)
}

// TestStatusReadsNothing: what a peer writes is ignored, and a peer that does not read holds nobody up for long.
func TestStatusReadsNothing(t *testing.T) {
	m := newMachine(t, hostdatatest.Guest{})
	m.boot()
	dial := func() net.Conn {
		conn, err := net.Dial("unix", m.path("run/status.sock"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	dial() // neither reads nor closes
	writer := dial()
	if _, err := writer.Write([]byte(strings.Repeat("GET / HTTP/1.1\n", 100))); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(writer)
	if err != nil || !json.Valid(text) {
		t.Errorf("status for a peer that writes: %q, %v", text, err)
	}
}
