// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"portcullis/agentproto/agentpb"
)

// onePod lets one container run at a time, whatever its id.
var onePod = strings.NewReplacer(
	"default CreateContainerRequest := true", `
CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/running", "value": input.container_id}]} if {
	not data.pstate.running
}`,
	"default RemoveContainerRequest := true", `
RemoveContainerRequest := {"allowed": true, "ops": [{"op": "remove", "path": "/pstate/running"}]} if {
	data.pstate.running == input.container_id
}`,
	"default ExecProcessRequest := true", `ExecProcessRequest if data.pstate.running == input.container_id`,
).Replace(allowAll)

// await waits until the agent has seen n calls of a method.
func await(t testing.TB, r *rig, method string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.agent.Await(ctx, method, n); err != nil {
		t.Fatalf("waiting for %s at the agent: %v", method, err)
	}
}

// probes counts the containers of running: an id is taken once.
var probes atomic.Int64

// running asks the policy whether a container runs. A request with ops waits until the one before it is settled.
func running(t *testing.T, c *client) bool {
	t.Helper()
	id := fmt.Sprint("probe", probes.Add(1))
	_, err := c.do(context.Background(), "CreateContainer", createContainer(id, "pause"))
	switch status.Code(err) {
	case codes.OK:
		c.must("RemoveContainer", &agentpb.RemoveContainerRequest{ContainerId: id})
		return false
	case codes.PermissionDenied:
		return true
	}
	t.Fatalf("probe: %v", err)
	return false
}

func stateRig(t *testing.T) (*rig, *client) {
	t.Helper()
	r := newRig(t, rigOptions{policy: onePod, journal: true})
	c := r.client()
	c.must("CreateSandbox", sandbox())
	return r, c
}

func TestClientThatDoesNotWaitChangesNothingOfTheOutcome(t *testing.T) {
	for name, leave := range map[string]func(t *testing.T, r *rig){
		"deadline of 1 ns": func(t *testing.T, r *rig) {
			conn := r.raw(t)
			envelope := request(t, "CreateContainer", createContainer("first", "pause"))
			envelope = append(envelope, 0x20, 0x01) // timeout_nano = 1
			if _, err := conn.Write(frame(1, frameRequest, 0, envelope)); err != nil {
				t.Fatal(err)
			}
			readResponse(t, conn)
			// Whether it was sent before the deadline was seen is the scheduler's choice.
			r.client().must("GetGuestDetails", &agentpb.GuestDetailsRequest{})
		},
		"deadline that passes at the agent": func(t *testing.T, r *rig) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, err := r.client().do(ctx, "CreateContainer", createContainer("first", "pause"))
			if !errors.Is(err, context.DeadlineExceeded) && status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("got %v", err)
			}
			await(t, r, "CreateContainer", 1)
		},
		"client gone": func(t *testing.T, r *rig) {
			conn := r.raw(t)
			if _, err := conn.Write(frame(1, frameRequest, 0, request(t, "CreateContainer", createContainer("first", "pause")))); err != nil {
				t.Fatal(err)
			}
			await(t, r, "CreateContainer", 1)
			conn.Close()
			time.Sleep(20 * time.Millisecond) // lets the gate see it
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, c := stateRig(t)
			release := r.agent.Block("CreateContainer")
			leave(t, r)
			release()
			policySees := running(t, c)
			if agentRuns := len(r.agent.Containers()) == 1; policySees != agentRuns {
				t.Errorf("policy says a container runs: %t; it runs: %t", policySees, agentRuns)
			}
			if !policySees && r.agent.Calls("CreateContainer") > 1 && name != "deadline of 1 ns" {
				t.Error("a container was lost")
			}
		})
	}
}

func TestAgentThatRefusesLeavesTheSlotFreeAndBurnsTheID(t *testing.T) {
	r, c := stateRig(t)
	r.agent.Fail("CreateContainer", status.New(codes.Internal, "no space"))
	if msg := c.fails(codes.Internal, "CreateContainer", createContainer("first", "pause")); msg != "no space" {
		t.Errorf("message %q", msg)
	}
	if msg := c.fails(codes.PermissionDenied, "CreateContainer", createContainer("first", "pause")); !strings.Contains(msg, "used before") {
		t.Errorf("message %q", msg)
	}
	c.must("CreateContainer", createContainer("second", "pause"))
	if !running(t, c) {
		t.Error("the second container was not counted")
	}
}

func TestAgentThatRefusesARemovalLeavesTheSlotTaken(t *testing.T) {
	r, c := stateRig(t)
	c.must("CreateContainer", createContainer("first", "pause"))
	r.agent.Fail("RemoveContainer", status.New(codes.Internal, "busy"))
	c.fails(codes.Internal, "RemoveContainer", &agentpb.RemoveContainerRequest{ContainerId: "first"})
	if !running(t, c) {
		t.Error("the slot was freed")
	}
	c.must("RemoveContainer", &agentpb.RemoveContainerRequest{ContainerId: "first"})
	if running(t, c) {
		t.Error("the slot was not freed")
	}
}

func TestAgentLostInTheMiddleOfCreateContainer(t *testing.T) {
	r, c := stateRig(t)
	r.agent.BlockReply("CreateContainer")
	failed := make(chan error, 1)
	go func() {
		_, err := c.do(context.Background(), "CreateContainer", createContainer("first", "pause"))
		failed <- err
	}()
	await(t, r, "CreateContainer", 1)
	r.agent.Kill()
	if err := <-failed; status.Code(err) != codes.Unavailable {
		t.Errorf("call in flight: %v", err)
	}
	removeSocket(t, r.socket.Path)
	r.startAgent()
	c.must("CreateSandbox", sandbox())
	// The container may exist: there is no room for a second one, nor for it again.
	c.fails(codes.PermissionDenied, "CreateContainer", createContainer("second", "pause"))
	c.fails(codes.PermissionDenied, "CreateContainer", createContainer("first", "pause"))
	// It may not exist: nothing may be done with it, and removing it frees nothing.
	c.fails(codes.PermissionDenied, "ExecProcess", &agentpb.ExecProcessRequest{ContainerId: "first"})
	c.fails(codes.PermissionDenied, "RemoveContainer", &agentpb.RemoveContainerRequest{ContainerId: "first"})
	c.fails(codes.PermissionDenied, "CreateContainer", createContainer("third", "pause"))
}

// An id is taken once in a boot, whatever becomes of its container, whoever waits for the state meanwhile, whether or not the policy
// has a state: what was judged for one container never reaches another.
func TestAContainerIDIsTakenOnce(t *testing.T) {
	t.Run("two at once, and the agent fails", func(t *testing.T) {
		r, c := stateRig(t)
		r.agent.Fail("CreateContainer", status.New(codes.Internal, "half of it was made"))
		release := r.agent.Block("CreateContainer")
		errs := make(chan error, 2)
		create := func() {
			_, err := c.do(context.Background(), "CreateContainer", createContainer("first", "pause"))
			errs <- err
		}
		go create()
		await(t, r, "CreateContainer", 1)
		go create() // waits for the state, in which there is still room
		time.Sleep(50 * time.Millisecond)
		release()
		got := map[codes.Code]int{status.Code(<-errs): 1}
		got[status.Code(<-errs)]++
		if got[codes.Internal] != 1 || got[codes.PermissionDenied] != 1 || r.agent.Calls("CreateContainer") != 1 {
			t.Errorf("answers %v, %d calls of the agent", got, r.agent.Calls("CreateContainer"))
		}
	})
	t.Run("by a policy without state", func(t *testing.T) {
		r := newRig(t, rigOptions{policy: allowAll})
		c := r.client()
		c.must("CreateSandbox", sandbox())
		r.agent.Fail("CreateContainer", status.New(codes.Internal, "half of it was made"))
		c.fails(codes.Internal, "CreateContainer", createContainer("first", "pause"))
		c.fails(codes.PermissionDenied, "CreateContainer", createContainer("first", "pause"))
		c.must("CreateContainer", createContainer("second", "pause"))
	})
	t.Run("after it was removed", func(t *testing.T) {
		_, c := stateRig(t)
		c.must("CreateContainer", createContainer("first", "pause"))
		c.must("RemoveContainer", &agentpb.RemoveContainerRequest{ContainerId: "first"})
		c.fails(codes.PermissionDenied, "CreateContainer", createContainer("first", "pause"))
		c.must("CreateContainer", createContainer("second", "pause"))
	})
	t.Run("without room on disk", func(t *testing.T) {
		r, c := stateRig(t)
		r.agent.Fail("CreateContainer", status.New(codes.Internal, "half of it was made"))
		c.fails(codes.Internal, "CreateContainer", createContainer("first", "pause"))
		if err := os.RemoveAll(r.dir + "/run"); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"first", "second"} {
			c.fails(codes.PermissionDenied, "CreateContainer", createContainer(id, "pause"))
		}
		if n := r.agent.Calls("CreateContainer"); n != 1 {
			t.Errorf("the agent was called %d times", n)
		}
	})
}

func TestAgentThatIsNotThereBurnsNothing(t *testing.T) {
	r := newRig(t, rigOptions{policy: onePod, noAgent: true})
	c := r.client()
	c.fails(codes.Unavailable, "CreateContainer", createContainer("first", "pause"))
	r.startAgent()
	c.must("CreateSandbox", sandbox())
	c.must("CreateContainer", createContainer("first", "pause"))
}

func TestOneRequestAtATimeHoldsTheState(t *testing.T) {
	r, c := stateRig(t)
	release := r.agent.Block("CreateContainer")
	results := make(chan error, 10)
	for _, id := range []string{"c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9"} {
		go func() {
			_, err := c.do(context.Background(), "CreateContainer", createContainer(id, "pause"))
			results <- err
		}()
	}
	await(t, r, "CreateContainer", 1)
	c.must("GetGuestDetails", &agentpb.GuestDetailsRequest{}) // requests without ops go on
	release()
	allowed := 0
	for range cap(results) {
		if err := <-results; err == nil {
			allowed++
		} else if status.Code(err) != codes.PermissionDenied {
			t.Errorf("unexpected %v", err)
		}
	}
	if allowed != 1 {
		t.Errorf("%d of 10 containers were let in, want 1", allowed)
	}
}

// A request that cannot be recorded for a restart is not sent.
func TestRequestIsNotSentWithoutItsJournalRecord(t *testing.T) {
	r, c := stateRig(t)
	if err := os.RemoveAll(r.dir + "/run"); err != nil {
		t.Fatal(err)
	}
	if msg := c.fails(codes.PermissionDenied, "CreateContainer", createContainer("first", "pause")); !strings.Contains(msg, "journal") {
		t.Errorf("message %q", msg)
	}
	if n := r.agent.Calls("CreateContainer"); n != 0 {
		t.Errorf("the agent was called %d times", n)
	}
	if err := os.Mkdir(r.dir+"/run", 0o700); err != nil {
		t.Fatal(err)
	}
	c.must("CreateContainer", createContainer("first", "pause"))
}

// What the policy learns from the answer to WaitProcess is settled before the client reads the answer, however the policy
// writes its observation. One that cannot be read changes nothing, and is counted.
func TestPolicySeesTheExitCode(t *testing.T) {
	const ops = `"ops": [{"op": "add", "path": "/pstate/exit", "value": input.response.status}]`
	for _, test := range []struct {
		name, observation string
		status            int32
		want              codes.Code
		unobserved        uint64
	}{
		{"succeeded", `{` + ops + `}`, 0, codes.OK, 0},
		{"failed", `{` + ops + `}`, 1, codes.PermissionDenied, 0},
		{"succeeded, and allowed", `{"allowed": true, ` + ops + `}`, 0, codes.OK, 0},
		{"not allowed", `{"allowed": false, ` + ops + `}`, 0, codes.PermissionDenied, 1},
		{"no object", `true`, 0, codes.PermissionDenied, 1},
		{"ops that do not apply", `{"ops": [{"op": "remove", "path": "/pstate/none"}]}`, 0, codes.PermissionDenied, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, rigOptions{policy: strings.Replace(allowAll, "default CreateContainerRequest := true", `
WaitProcessResponse := `+test.observation+` if input.request.container_id == "init"

CreateContainerRequest if input.container_id == "init"

CreateContainerRequest if data.pstate.exit == 0`, 1)})
			c := r.client()
			c.must("CreateSandbox", sandbox())
			c.must("CreateContainer", createContainer("init", "pause"))
			c.must("StartContainer", &agentpb.StartContainerRequest{ContainerId: "init"})
			c.fails(codes.PermissionDenied, "CreateContainer", createContainer("app", "pause"))
			if err := r.agent.Exit("init", "", test.status); err != nil {
				t.Fatal(err)
			}
			resp := c.must("WaitProcess", &agentpb.WaitProcessRequest{ContainerId: "init"}).(*agentpb.WaitProcessResponse)
			if resp.GetStatus() != test.status {
				t.Errorf("status %d, want %d", resp.GetStatus(), test.status)
			}
			if _, err := c.do(context.Background(), "CreateContainer", createContainer("app", "pause")); status.Code(err) != test.want {
				t.Errorf("after exit code %d: %v, want %s", test.status, err, test.want)
			}
			if got := r.chain.Status(context.Background()).Unobserved; got != test.unobserved {
				t.Errorf("%d answers count as not taken note of, want %d", got, test.unobserved)
			}
		})
	}
}
