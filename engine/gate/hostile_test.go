// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto/agentpb"
	"portcullis/engine/gate"
)

func TestMain(m *testing.M) {
	log.L.Logger.SetOutput(io.Discard) // ttrpc's complaints about the clients below
	os.Exit(m.Run())
}

// ttrpc frame types and flags (PROTOCOL.md).
const (
	frameRequest  = 1
	frameResponse = 2
	frameData     = 3
	remoteClosed  = 1
	noData        = 4
)

func frame(id uint32, kind, flags byte, message []byte) []byte {
	b := make([]byte, 10, 10+len(message))
	binary.BigEndian.PutUint32(b, uint32(len(message)))
	binary.BigEndian.PutUint32(b[4:], id)
	b[8], b[9] = kind, flags
	return append(b, message...)
}

// request is an encoded ttrpc Request for a method of the agent.
func request(t testing.TB, method string, payload proto.Message) []byte {
	t.Helper()
	return encode(t, &ttrpc.Request{Service: "grpc.AgentService", Method: method, Payload: encode(t, payload)})
}

// raw opens a connection without a ttrpc client.
func (r *rig) raw(t testing.TB) net.Conn {
	t.Helper()
	conn, err := r.address.Dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// blockedRig has a container that does not end, for a WaitProcess that stays in flight.
func blockedRig(t testing.TB) (*rig, *client) {
	r := newRig(t, rigOptions{policy: allowAll})
	c := r.client()
	c.must("CreateSandbox", sandbox())
	c.must("CreateContainer", createContainer("app", "pause"))
	return r, c
}

func TestFramesOutOfPlaceCloseOnlyTheirConnection(t *testing.T) {
	r, good := blockedRig(t)
	wait := frame(1, frameRequest, 0, request(t, "WaitProcess", &agentpb.WaitProcessRequest{ContainerId: "app"}))
	stats := request(t, "StatsContainer", &agentpb.StatsContainerRequest{ContainerId: "app"})
	for name, bytes := range map[string][]byte{
		"data on an in-flight stream":       append(wait[:len(wait):len(wait)], frame(1, frameData, 0, []byte("x"))...),
		"close-only data on such a stream":  append(wait[:len(wait):len(wait)], frame(1, frameData, remoteClosed|noData, nil)...),
		"close with data on such a stream":  append(wait[:len(wait):len(wait)], frame(1, frameData, remoteClosed, []byte("x"))...),
		"data on a stream that is not open": frame(7, frameData, 0, []byte("x")),
		"response":                          frame(1, frameResponse, 0, []byte("x")),
		"unknown type":                      frame(1, 9, 0, nil),
		"even stream id":                    frame(2, frameRequest, 0, stats),
		"stream id zero":                    frame(0, frameRequest, 0, stats),
		"stream id used before":             append(wait[:len(wait):len(wait)], wait...),
		"falling stream id":                 append(frame(9, frameRequest, 0, stats), frame(3, frameRequest, 0, stats)...),
		"envelope that is no protobuf":      frame(1, frameRequest, 0, []byte("\xff\xff\xff")),
		"envelope with an unknown field":    frame(1, frameRequest, 0, append(stats[:len(stats):len(stats)], 0x98, 0x06, 0x01)),
		"envelope with bad metadata":        frame(1, frameRequest, 0, append(stats[:len(stats):len(stats)], 0x2a, 0x01, 0xff)),
		"gigantic length":                   frame(1, frameRequest, 0, nil)[:0:0],
		"garbage":                           randomBytes(4096),
	} {
		t.Run(name, func(t *testing.T) {
			if name == "gigantic length" {
				bytes = []byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, frameRequest, 0}
			}
			if name == "garbage" {
				bytes[8] = 0x55 // never a request, which could be a frame that has yet to arrive
			}
			conn := r.raw(t)
			if _, err := conn.Write(bytes); err != nil {
				t.Fatal(err)
			}
			expectClose(t, conn)
			good.must("StatsContainer", &agentpb.StatsContainerRequest{ContainerId: "app"})
		})
	}
}

// expectClose reads until the peer closes; answers that come first do not matter.
func expectClose(t testing.TB, conn net.Conn) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("connection stays open")
	}
}

func TestHalfAFrameIsGivenUpAfterItsDeadline(t *testing.T) {
	limits := gate.DefaultLimits()
	limits.FrameTimeout = 50 * time.Millisecond
	r := newRig(t, rigOptions{policy: allowAll, limits: limits})
	whole := frame(1, frameRequest, 0, request(t, "GetGuestDetails", &agentpb.GuestDetailsRequest{}))
	for _, part := range []int{1, 9, 10, len(whole) - 1} {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			conn := r.raw(t)
			if _, err := conn.Write(whole[:part]); err != nil {
				t.Fatal(err)
			}
			expectClose(t, conn)
		})
	}
	r.client().must("GetGuestDetails", &agentpb.GuestDetailsRequest{})
}

func TestOversizedRequestIsRefusedAndTheConnectionGoesOn(t *testing.T) {
	r := newRig(t, rigOptions{policy: allowAll})
	c := r.client()
	big := &agentpb.WriteStreamRequest{ContainerId: "app", Data: make([]byte, 5<<20)}
	conn := r.raw(t)
	go conn.Write(frame(1, frameRequest, 0, request(t, "WriteStdin", big))) //nolint:errcheck // the answer tells
	resp := readResponse(t, conn)
	if code := codes.Code(resp.GetStatus().GetCode()); code != codes.ResourceExhausted || resp.GetStatus().GetMessage() != "request is larger than 4 MiB" {
		t.Errorf("code %s: %s", code, resp.GetStatus().GetMessage())
	}
	if _, err := conn.Write(frame(3, frameRequest, 0, request(t, "GetGuestDetails", &agentpb.GuestDetailsRequest{}))); err != nil {
		t.Fatal(err)
	}
	if resp := readResponse(t, conn); codes.Code(resp.GetStatus().GetCode()) != codes.OK {
		t.Errorf("next request: %v", resp.GetStatus())
	}
	c.must("GetGuestDetails", &agentpb.GuestDetailsRequest{})
}

func readResponse(t testing.TB, conn net.Conn) *ttrpc.Response {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var header [10]byte
	if _, err := io.ReadFull(conn, header[:]); err != nil {
		t.Fatal(err)
	}
	message := make([]byte, binary.BigEndian.Uint32(header[:]))
	if _, err := io.ReadFull(conn, message); err != nil {
		t.Fatal(err)
	}
	var resp ttrpc.Response
	if err := proto.Unmarshal(message, &resp); err != nil {
		t.Fatal(err)
	}
	return &resp
}

func TestRequestsBeyondTheLimitAreRefused(t *testing.T) {
	limits := gate.DefaultLimits()
	limits.Requests = 8
	r := newRig(t, rigOptions{policy: allowAll, limits: limits})
	c := r.client()
	release := r.agent.Block("StatsContainer")
	ended := make(chan error, 8)
	for range 8 {
		go func() {
			_, err := c.do(context.Background(), "StatsContainer", &agentpb.StatsContainerRequest{ContainerId: "app"})
			ended <- err
		}()
	}
	await(t, r, "StatsContainer", 8)
	if msg := c.fails(codes.ResourceExhausted, "GetGuestDetails", &agentpb.GuestDetailsRequest{}); !strings.Contains(msg, "too many requests") {
		t.Errorf("message %q", msg)
	}
	release()
	for range 8 {
		<-ended
	}
	c.must("GetGuestDetails", &agentpb.GuestDetailsRequest{})
}

// Malformed requests give their place back: thousands of them do not use the limit up.
func TestRefusedRequestsGiveTheirPlaceBack(t *testing.T) {
	limits := gate.DefaultLimits()
	limits.Requests = 4
	r := newRig(t, rigOptions{policy: allowAll, limits: limits})
	c := r.client()
	ctx := context.Background()
	for range 100 {
		for name, want := range map[string]codes.Code{"StatsContainer": codes.InvalidArgument, "Nothing": codes.Unimplemented} {
			var bad agentpb.StatsContainerRequest
			bad.ProtoReflect().SetUnknown([]byte{0x0a, 0x01, 0xff}) // container_id is no UTF-8
			err := c.Call(ctx, "grpc.AgentService", name, &bad, &agentpb.StatsContainerResponse{})
			if status.Code(err) != want {
				t.Fatalf("%s: %v, want %s", name, err, want)
			}
		}
	}
	c.must("GetGuestDetails", &agentpb.GuestDetailsRequest{})
}

func TestManyMixedRequestsAtOnce(t *testing.T) {
	r := newRig(t, rigOptions{policy: allowAll})
	clients := []*client{r.client(), r.client(), r.client(), r.client()}
	clients[0].must("CreateSandbox", sandbox())
	clients[0].must("CreateContainer", createContainer("app", "pause"))
	clients[0].must("StartContainer", &agentpb.StartContainerRequest{ContainerId: "app"})
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			if _, err := clients[i%4].do(context.Background(), "WaitProcess", &agentpb.WaitProcessRequest{ContainerId: "app"}); err != nil {
				t.Errorf("WaitProcess: %v", err)
			}
		})
	}
	await(t, r, "WaitProcess", 100)
	var mixed sync.WaitGroup
	for i := range 900 {
		mixed.Go(func() {
			c := clients[i%4]
			var err error
			switch i % 5 {
			case 0:
				_, err = c.do(context.Background(), "StatsContainer", &agentpb.StatsContainerRequest{ContainerId: "app"})
			case 1:
				_, err = c.do(context.Background(), "ExecProcess", &agentpb.ExecProcessRequest{
					ContainerId: "app", ExecId: fmt.Sprintf("exec-%d", i), Process: &agentpb.Process{Args: []string{"true"}}})
			case 2:
				_, err = c.do(context.Background(), "GetGuestDetails", &agentpb.GuestDetailsRequest{})
			case 3:
				_, err = c.do(context.Background(), "TtyWinResize", &agentpb.TtyWinResizeRequest{ContainerId: "app", Row: 24, Column: 80})
				if status.Code(err) == codes.Internal || status.Code(err) == codes.NotFound || status.Code(err) == codes.Unavailable {
					err = nil // the process has no terminal
				}
			case 4:
				_, err = c.do(context.Background(), "StatsContainer", &agentpb.StatsContainerRequest{ContainerId: fmt.Sprintf("none-%d", i)})
				if status.Code(err) == codes.InvalidArgument {
					err = nil
				}
			}
			if err != nil {
				t.Errorf("request %d: %v", i, err)
			}
		})
	}
	mixed.Wait()
	if err := r.agent.Exit("app", "", 0); err != nil {
		t.Fatal(err)
	}
	all.Wait()
}
