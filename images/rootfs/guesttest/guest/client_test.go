// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/mdlayher/vsock"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto"
	"portcullis/agentproto/agentpb"
)

const (
	loopback  = 1 // VMADDR_CID_LOCAL
	agentPort = 1024
)

// wait is how long a test waits for what must come, pause how long between two looks: without KVM everything is slow, and
// looking takes the time of what is looked for.
var wait, pause = patience()

func patience() (wait, pause time.Duration) {
	if cmdline["guesttest.accel"] == "kvm" {
		return 20 * time.Second, 2 * time.Millisecond
	}
	return 2 * time.Minute, 50 * time.Millisecond
}

// host is a connection to policyd as the host makes it, but from the guest itself.
type host struct {
	t      *testing.T
	client *ttrpc.Client
}

// dial connects to policyd's vsock port, trying until it listens.
func dial(t *testing.T) host {
	t.Helper()
	deadline := time.Now().Add(wait)
	for {
		conn, err := vsock.Dial(loopback, agentPort, nil)
		if err == nil {
			heard := &listening{Conn: conn}
			h := host{t, ttrpc.NewClient(heard)}
			t.Cleanup(func() {
				h.client.Close()
				if heard.secret() {
					t.Errorf("the host heard %q", secret)
				}
			})
			return h
		}
		if time.Now().After(deadline) {
			t.Fatalf("policyd does not listen on vsock port %d: %v", agentPort, err)
		}
		time.Sleep(pause)
	}
}

// secret is what the image's pod has in its containers' environment.
const secret = "hunter2-NEVER-LEAVES"

// listening is a host that keeps what it hears.
type listening struct {
	net.Conn
	mu    sync.Mutex
	heard bytes.Buffer
}

func (l *listening) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard.Write(p[:n])
	return n, err
}

func (l *listening) secret() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.heard.Bytes(), []byte(secret))
}

func (h host) call(kind string, request proto.Message) error {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	for _, m := range agentproto.Methods() {
		if m.EntryPoint() == kind {
			return h.client.Call(ctx, m.Service, m.Name, request, m.Response.New().Interface())
		}
	}
	h.t.Fatalf("no method takes %s", kind)
	return nil
}

// allowed makes a request that policyd and the agent must answer.
func (h host) allowed(kind string, request proto.Message) {
	h.t.Helper()
	if err := h.call(kind, request); err != nil {
		h.t.Errorf("%s: %v", kind, err)
	}
}

// served is allowed for the first request of a guest, before which the agent may not be up yet.
func (h host) served(c testCase) {
	h.t.Helper()
	for deadline := time.Now().Add(wait); ; time.Sleep(pause) {
		err := h.call(c.Kind, c.message(h.t))
		if err == nil {
			return
		}
		if status.Code(err) != codes.Unavailable || time.Now().After(deadline) {
			h.t.Fatalf("%s: %v", c.Kind, err)
		}
	}
}

// denied makes a request that must fail with the code and contain the text.
func (h host) denied(kind string, request proto.Message, code codes.Code, text string) {
	h.t.Helper()
	err := h.call(kind, request)
	if status.Code(err) != code || !strings.Contains(status.Convert(err).Message(), text) {
		h.t.Errorf("%s: got %v, want %v with %q", kind, err, code, text)
	}
}

func (h host) setPolicy(text []byte) error {
	return h.call("SetPolicyRequest", &agentpb.SetPolicyRequest{Policy: string(text)})
}

// testCase is one request of a pod's life in the shape of its policy's input.
type testCase struct {
	Kind    string          `json:"kind"`
	Request json.RawMessage `json:"request"`
	Allowed bool            `json:"allowed"`
	Case    string          `json:"case"`
}

func (c testCase) message(t *testing.T) proto.Message {
	t.Helper()
	mt, ok := agentproto.MessageByName(c.Kind)
	if !ok {
		t.Fatalf("no message %s", c.Kind)
	}
	m, err := agentproto.FromInput(mt, c.Request)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func readCases(t *testing.T) []testCase {
	t.Helper()
	return casesOf(t, casesPath)
}

func casesOf(t *testing.T, path string) []testCase {
	t.Helper()
	var cases []testCase
	dec := json.NewDecoder(strings.NewReader(string(read(t, path))))
	for {
		var c testCase
		err := dec.Decode(&c)
		if errors.Is(err, io.EOF) {
			return cases
		}
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, c)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// guestStatus is the part of policyd's status that the tests look at.
type guestStatus struct {
	Mode, Backend, Binding, State, Code, Policy string
	Register                                    struct{ State, Digest string }
	Initdata                                    struct{ Digest string }
}

func readStatus(t *testing.T) guestStatus {
	t.Helper()
	conn, err := net.Dial("unix", "/run/portcullis/status.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var s guestStatus
	if err := json.NewDecoder(conn).Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

func pcr8(t *testing.T) string {
	t.Helper()
	return strings.ToLower(strings.TrimSpace(string(read(t, "/sys/class/tpm/tpm0/pcr-sha256/8"))))
}

// policydPID returns the process id of policyd, 0 if it does not run.
func policydPID(t *testing.T) int {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == "/usr/bin/policyd" {
			pid, err := strconv.Atoi(strings.Split(link, "/")[2])
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	return 0
}

// kill kills policyd as nobody can prevent, and returns when another one runs.
func kill(t *testing.T) {
	t.Helper()
	old := policydPID(t)
	if old == 0 {
		t.Fatal("policyd does not run")
	}
	p, err := os.FindProcess(old)
	if err == nil {
		err = p.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(wait); ; time.Sleep(pause) {
		if pid := policydPID(t); pid != 0 && pid != old {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("policyd does not come back")
		}
	}
}

// memory returns a field of /proc/PID/status of policyd in bytes.
func memory(t *testing.T, field string) int {
	t.Helper()
	for line := range strings.Lines(string(read(t, fmt.Sprintf("/proc/%d/status", policydPID(t))))) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			kib, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatalf("no %s of policyd", field)
	return 0
}
