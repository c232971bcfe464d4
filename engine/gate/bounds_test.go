// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"portcullis/agentproto/agentpb"
	"portcullis/engine/gate"
)

// emptyStorages is an encoded CreateContainerRequest of that many bytes, each two of which are a storage.
func emptyStorages(size int) []byte {
	one := protowire.AppendBytes(protowire.AppendTag(nil, 5, protowire.BytesType), nil)
	return []byte(strings.Repeat(string(one), size/len(one)))
}

// envelopeOf is an encoded ttrpc Request with a payload that no message need be.
func envelopeOf(t testing.TB, service, method string, payload []byte) []byte {
	t.Helper()
	return encode(t, &ttrpc.Request{Service: service, Method: method, Payload: payload})
}

// Decoded, two bytes of a frame can become a thousand: what they become is counted before.
func TestRequestsAreWeighedBeforeTheyAreDecoded(t *testing.T) {
	r := newRig(t, rigOptions{policy: allowAll})
	conn := r.raw(t)
	for i, payload := range [][]byte{emptyStorages(4<<20 - 64), emptyStorages(64 << 10), emptyStorages(30 << 10)} {
		if _, err := conn.Write(frame(uint32(2*i+1), frameRequest, 0, envelopeOf(t, "grpc.AgentService", "CreateContainer", payload))); err != nil {
			t.Fatal(err)
		}
		resp := readResponse(t, conn)
		if code := codes.Code(resp.GetStatus().GetCode()); code != codes.ResourceExhausted || !strings.Contains(resp.GetStatus().GetMessage(), "too many parts") {
			t.Errorf("%d bytes of empty storages: %s: %s", len(payload), code, resp.GetStatus().GetMessage())
		}
	}
	if n := r.agent.Calls("CreateContainer"); n != 0 {
		t.Errorf("%d reached the agent", n)
	}
	r.client().must("CreateSandbox", sandbox())
}

func TestNamesThatAreNoTextGiveTheirPlaceBack(t *testing.T) {
	limits := gate.DefaultLimits()
	limits.Requests = 4
	r := newRig(t, rigOptions{policy: allowAll, limits: limits})
	conn := r.raw(t)
	good := envelopeOf(t, "grpc.AgentService", "GetGuestDetails", nil)
	for i := range 50 {
		message := append([]byte{0x0a, 1, 0xff}, good...) // a service that is overwritten
		if i%2 == 1 {
			message = append(good[:len(good):len(good)], 0x12, 2, 0xc3, 0x28) // the method, at last
		}
		if _, err := conn.Write(frame(uint32(2*i+1), frameRequest, 0, message)); err != nil {
			t.Fatal(err)
		}
		resp := readResponse(t, conn)
		if want := [2]codes.Code{codes.OK, codes.Unimplemented}[i%2]; codes.Code(resp.GetStatus().GetCode()) != want {
			t.Fatalf("request %d: %v", i, resp.GetStatus())
		}
	}
	r.client().must("GetGuestDetails", &agentpb.GuestDetailsRequest{})
}

// A client that never reads is not read from once a few of its answers wait, is closed in the end, and keeps nobody out.
func TestUnreadAnswersAreFew(t *testing.T) {
	limits := gate.DefaultLimits()
	limits.AnswerWait = 2 * time.Second
	r := newRig(t, rigOptions{policy: "package agent_policy\n\ndefault GuestDetailsRequest := true\n", limits: limits})
	conn := r.raw(t)
	deaf := frame(1, frameRequest, 0, request(t, "GetGuestDetails", &agentpb.GuestDetailsRequest{}))
	sent := 0
	var err error
	for id := uint32(1); err == nil && sent < 200_000; id += 2 {
		deaf[4], deaf[5], deaf[6], deaf[7] = byte(id>>24), byte(id>>16), byte(id>>8), byte(id)
		_ = conn.SetWriteDeadline(time.Now().Add(20 * time.Second))
		if _, err = conn.Write(deaf); err == nil {
			sent++
		}
	}
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the gate took %d requests whose answers nobody read, and keeps the connection: %v", sent, err)
	}
	r.client().must("GetGuestDetails", &agentpb.GuestDetailsRequest{})
}

// Each connection has room that others cannot take.
func TestOneClientKeepsNobodyOut(t *testing.T) {
	limits := gate.DefaultLimits()
	limits.Requests = 256 // of which 4 are each connection's own
	r := newRig(t, rigOptions{policy: allowAll, limits: limits})
	greedy, modest := r.client(), r.client()
	release := r.agent.Block("StatsContainer")
	defer release()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	refused := make(chan error, 400)
	for range 400 {
		go func() {
			_, err := greedy.do(ctx, "StatsContainer", &agentpb.StatsContainerRequest{ContainerId: "app"})
			if status.Code(err) == codes.ResourceExhausted {
				refused <- err
			}
		}()
	}
	<-refused
	modest.must("GetGuestDetails", &agentpb.GuestDetailsRequest{})
}

// Re-encoded, a request can be longer than it came: it is refused, not sent, and nothing is in doubt.
func TestRequestThatGrowsIsRefusedAndNotInDoubt(t *testing.T) {
	limits := gate.DefaultLimits()
	limits.Decoded = 16 << 20
	r := newRig(t, rigOptions{limits: limits, policy: `package agent_policy

import rego.v1

default CreateSandboxRequest := true

CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/running", "value": true}]} if not data.pstate.running
`})
	c := r.client()
	c.must("CreateSandbox", sandbox())
	var spec []byte
	for i := range 4000 { // entries of a map without a value get one, of two bytes
		entry := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), fmt.Sprint(i))
		spec = protowire.AppendBytes(protowire.AppendTag(spec, 7, protowire.BytesType), entry)
	}
	spec = protowire.AppendString(protowire.AppendTag(spec, 4, protowire.BytesType), strings.Repeat("h", 4<<20-1000-len(spec)))
	wire := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "first")
	wire = protowire.AppendBytes(protowire.AppendTag(wire, 6, protowire.BytesType), spec)
	conn := r.raw(t)
	if _, err := conn.Write(frame(1, frameRequest, 0, envelopeOf(t, "grpc.AgentService", "CreateContainer", wire))); err != nil {
		t.Fatal(err)
	}
	if st := readResponse(t, conn).GetStatus(); !strings.Contains(st.GetMessage(), "larger than 4 MiB") {
		t.Errorf("answer %v", st)
	}
	c.must("CreateContainer", createContainer("second", "pause"))
}

// Connections that are too many leave next to nothing for the collector: a host can make tens of thousands a second.
func TestRefusedConnectionsCostLittle(t *testing.T) {
	limits := gate.DefaultLimits()
	limits.Connections = 1
	r := newRig(t, rigOptions{policy: allowAll, limits: limits})
	r.client().must("CreateSandbox", sandbox())
	const connections = 300
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range connections {
		conn, err := r.address.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("one too many is served")
		}
		conn.Close()
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / connections; each > 8<<10 {
		t.Errorf("%d bytes for each, its client's among them", each)
	}
}

// Processes that are waited for end when they like: of a host that waits for one a thousand times little stays meanwhile.
func TestWhatWaitsForAProcessIsSmall(t *testing.T) {
	r := newRig(t, rigOptions{policy: allowAll, noAgent: true})
	l, err := net.Listen("unix", r.socket.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	const requests = 1000
	asked, end := make(chan struct{}), make(chan struct{})
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		for range requests {
			if _, _, err := readFrame(conn); err != nil {
				return
			}
		}
		close(asked)
		<-end
		for i := range requests {
			_, _ = conn.Write(frame(uint32(2*i+1), 2, 0, nil))
		}
	}()
	conn := r.raw(t)
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	before := runtime.NumGoroutine()
	for i := range requests {
		if _, err := conn.Write(frame(uint32(2*i+1), frameRequest, 0, request(t, "WaitProcess", &agentpb.WaitProcessRequest{ContainerId: "app"}))); err != nil {
			t.Fatal(err)
		}
	}
	<-asked
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before+100; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d requests have %d goroutines", requests, runtime.NumGoroutine()-before)
		}
	}
	close(end)
	for range requests {
		if resp := readResponse(t, conn); resp.GetStatus().GetCode() != 0 {
			t.Fatalf("the process has ended: %v", resp.GetStatus())
		}
	}
}
