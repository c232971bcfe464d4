// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"bytes"
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto/agentpb"
	"portcullis/engine"
	"portcullis/engine/gate"
)

// payloadsOf answers each request that the gate's agent gets and gives its payload.
func payloadsOf(t *testing.T, r *rig) <-chan []byte {
	t.Helper()
	l, err := net.Listen("unix", r.socket.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	got := make(chan []byte, 16)
	serve := func(conn net.Conn) {
		defer conn.Close()
		for {
			id, message, err := readFrame(conn)
			var request ttrpc.Request
			if err != nil || proto.Unmarshal(message, &request) != nil {
				return
			}
			got <- request.GetPayload()
			_, _ = conn.Write(frame(id, 2, 0, payload([]byte("output"))))
		}
	}
	go func() {
		for {
			conn, err := l.Accept() // one for each client
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	return got
}

// What the agent gets is what was judged, however often the same bytes come, and in whatever form.
func TestWhatComesAgainIsSentAsItWasJudged(t *testing.T) {
	r := newRig(t, rigOptions{policy: readingPolicy, noAgent: true})
	got := payloadsOf(t, r)
	judged := encode(t, &agentpb.ReadStreamRequest{ContainerId: "judged", Len: 100})
	for name, sent := range map[string][]byte{
		"as it is encoded":      judged,
		"a field twice":         append(encode(t, &agentpb.ReadStreamRequest{ContainerId: "other"}), judged...),
		"fields in other order": append(encode(t, &agentpb.ReadStreamRequest{Len: 100}), encode(t, &agentpb.ReadStreamRequest{ContainerId: "judged"})...),
	} {
		conn := r.raw(t)
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			if _, err := conn.Write(frame(uint32(2*i+1), frameRequest, 0, envelopeOf(t, "grpc.AgentService", "ReadStdout", sent))); err != nil {
				t.Fatal(err)
			}
			if _, _, err := readFrame(conn); err != nil {
				t.Fatal(err)
			}
			if p := <-got; !bytes.Equal(p, judged) {
				t.Errorf("%s, time %d: the agent got %x, judged was %x", name, i+1, p, judged)
			}
		}
	}
}

// turning is a policy that allows, and then denies what it remembers.
type turning struct {
	gate.Policies
	denies atomic.Bool
}

func (p *turning) Recall(r engine.Request) *engine.Verdict {
	v := p.Policies.Recall(r)
	if v != nil && p.denies.Load() {
		return &engine.Verdict{Policy: v.Policy, Generation: v.Generation, Reason: "it is denied now"}
	}
	return v
}

func (p *turning) Admit(ctx context.Context, r engine.Request) (*engine.Verdict, error) {
	if v := p.Recall(r); v != nil {
		return v, nil
	}
	return p.Policies.Admit(ctx, r)
}

func TestWhatComesAgainIsAskedOfThePolicyEachTime(t *testing.T) {
	var policies turning
	r := newRig(t, rigOptions{policy: allowAll, between: func(p gate.Policies) gate.Policies {
		policies.Policies = p
		return &policies
	}})
	c := r.client()
	c.must("CreateSandbox", sandbox())
	c.must("CreateContainer", createContainer("app", "cat"))
	stats := &agentpb.StatsContainerRequest{ContainerId: "app"}
	for range 5 {
		c.must("StatsContainer", stats)
	}
	policies.denies.Store(true)
	for range 3 {
		c.fails(codes.PermissionDenied, "StatsContainer", stats)
	}
	if n := r.agent.Calls("StatsContainer"); n != 5 {
		t.Errorf("%d requests reached the agent, want 5", n)
	}
	for _, n := range r.gate.Counts() {
		if n.Request == "StatsContainerRequest" && (n.Allowed != 5 || n.Denied != 3) {
			t.Errorf("%d allowed and %d denied, want 5 and 3", n.Allowed, n.Denied)
		}
	}
}
