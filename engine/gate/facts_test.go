// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto/agentpb"
	"portcullis/engine/gate"
	"portcullis/measure/record"
)

// notes takes facts, and says beside each how many requests the agent had seen by then.
type notes struct {
	rig  *rig
	mu   sync.Mutex
	down bool
	got  []string
}

func (n *notes) note(what string, f record.Fact) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down {
		return errors.New("out of order")
	}
	n.got = append(n.got, strings.TrimSpace(fmt.Sprint(what, " ", f.Kind, " ", f.ID)))
	return nil
}

func (n *notes) Before(_ context.Context, f record.Fact) error {
	if n.rig.agent.Calls(methods[f.Kind]) > 0 {
		return fmt.Errorf("%s reached the agent before it was recorded", f.Kind)
	}
	return n.note("before", f)
}
func (n *notes) Refused(_ context.Context, f record.Fact) error  { return n.note("refused", f) }
func (n *notes) Happened(_ context.Context, f record.Fact) error { return n.note("happened", f) }
func (n *notes) Settle(context.Context) error                    { return n.note("settle", record.Fact{}) }

var methods = map[record.Kind]string{record.Sandbox: "CreateSandbox", record.Created: "CreateContainer", record.Started: "StartContainer",
	record.Exec: "ExecProcess", record.Signalled: "SignalProcess", record.Removed: "RemoveContainer"}

// TestFactsAreRecordedBeforeTheAgentHasThem, and nothing else is.
func TestFactsAreRecordedBeforeTheAgentHasThem(t *testing.T) {
	n := &notes{}
	r := newRig(t, rigOptions{policy: allowAll, record: n})
	n.rig = r
	c := r.client()
	c.must("CreateSandbox", sandbox())
	c.must("CreateContainer", createContainer("web", "pause"))
	c.must("StartContainer", &agentpb.StartContainerRequest{ContainerId: "web"})
	c.must("StatsContainer", &agentpb.StatsContainerRequest{ContainerId: "web"})
	c.must("ExecProcess", &agentpb.ExecProcessRequest{ContainerId: "web", ExecId: "probe", Process: &agentpb.Process{Args: []string{"true"}}})
	c.must("WaitProcess", &agentpb.WaitProcessRequest{ContainerId: "web", ExecId: "probe"})
	c.must("SignalProcess", &agentpb.SignalProcessRequest{ContainerId: "web", Signal: 9})
	c.must("WaitProcess", &agentpb.WaitProcessRequest{ContainerId: "web"})
	c.must("RemoveContainer", &agentpb.RemoveContainerRequest{ContainerId: "web"})
	want := []string{"before sandbox " + sandbox().GetSandboxId(), "before created web", "before started web", "settle", "before exec web", "before signalled web",
		"happened ended web", "before removed web"}
	if !slices.Equal(n.got, want) {
		t.Errorf("recorded %q\nwant     %q", n.got, want)
	}
}

// TestWhatCannotBeRecordedIsDenied, and does not reach the agent; what is no fact goes on.
func TestWhatCannotBeRecordedIsDenied(t *testing.T) {
	n := &notes{}
	r := newRig(t, rigOptions{policy: allowAll, record: n})
	n.rig = r
	c := r.client()
	c.must("CreateSandbox", sandbox())
	n.down = true
	if why := c.fails(codes.PermissionDenied, "CreateContainer", createContainer("web", "pause")); !strings.Contains(why, "launch record cannot be written") {
		t.Error(why)
	}
	if r.agent.Calls("CreateContainer") > 0 {
		t.Error("it reached the agent")
	}
	c.must("GetGuestDetails", &agentpb.GuestDetailsRequest{})
}

// TestWhatTheAgentRefusesIsTakenBack, as is what no agent was there for.
func TestWhatTheAgentRefusesIsTakenBack(t *testing.T) {
	n := &notes{}
	r := newRig(t, rigOptions{policy: allowAll, record: n})
	n.rig = r
	c := r.client()
	c.must("CreateSandbox", sandbox())
	if _, err := c.do(t.Context(), "StartContainer", &agentpb.StartContainerRequest{ContainerId: "web"}); err == nil {
		t.Fatal("the agent started what is not there")
	}
	if got := n.got[len(n.got)-1]; got != "refused started web" {
		t.Errorf("the last note is %q", got)
	}
}

// TestRequestsThatAreNoFactsCostNothing: they are told apart by their type, without an allocation.
func TestRequestsThatAreNoFactsCostNothing(t *testing.T) {
	for _, request := range []proto.Message{&agentpb.StatsContainerRequest{}, &agentpb.ReadStreamRequest{}, &agentpb.CopyFileRequest{},
		&agentpb.CheckRequest{}, &agentpb.WaitProcessRequest{}, &agentpb.SignalProcessRequest{ContainerId: "web", ExecId: "probe"}} {
		isFact := gate.FactOf(&notes{}, request)
		if isFact() {
			t.Errorf("%T is a fact", request)
		}
		if n := testing.AllocsPerRun(100, func() { isFact() }); n > 0 {
			t.Errorf("%T: %v allocations", request, n)
		}
		start := time.Now()
		for range 1000 {
			isFact()
		}
		t.Logf("%T: %v", request, time.Since(start)/1000)
	}
}
