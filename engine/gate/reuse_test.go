// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"portcullis/agentproto/agentpb"
)

// inOrder lets main be created once check and verify have ended well, and one command run in check alone.
var inOrder = strings.NewReplacer(
	"default CreateContainerRequest := true", `
name_of(id) := data.pstate[concat(":", ["container", id])]

CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": concat(":", ["/pstate/container", input.container_id]), "value": name}]} if {
	name := input.OCI.Process.Args[0]
	every step in {"check": [], "verify": ["check"], "main": ["check", "verify"]}[name] {
		data.pstate[concat(":", ["succeeded", step])]
	}
}

WaitProcessResponse := {"ops": [{"op": "add", "path": concat(":", ["/pstate/succeeded", name_of(input.request.container_id)]), "value": true}]} if {
	input.response.status == 0
}`,
	"default RemoveContainerRequest := true", `
RemoveContainerRequest := {"allowed": true, "ops": [{"op": "remove", "path": concat(":", ["/pstate/container", input.container_id])}]}`,
	"default ExecProcessRequest := true", `ExecProcessRequest if name_of(input.container_id) == "check"`,
).Replace(allowAll)

// What is on its way for one container never reaches another: neither the agent's answer, nor a request that waits in the agent.
func TestWhatIsOnItsWayReachesNoOtherContainer(t *testing.T) {
	start := func(t *testing.T) (*rig, *client) {
		r := newRig(t, rigOptions{policy: inOrder})
		c := r.client()
		c.must("CreateSandbox", sandbox())
		c.must("CreateContainer", createContainer("c1", "check"))
		c.must("StartContainer", &agentpb.StartContainerRequest{ContainerId: "c1"})
		return r, c
	}
	remove := &agentpb.RemoveContainerRequest{ContainerId: "c1"}
	t.Run("an answer", func(t *testing.T) {
		r, c := start(t)
		c.must("CreateContainer", createContainer("c2", "check"))
		c.must("StartContainer", &agentpb.StartContainerRequest{ContainerId: "c2"})
		if err := r.agent.Exit("c2", "", 0); err != nil {
			t.Fatal(err)
		}
		c.must("WaitProcess", &agentpb.WaitProcessRequest{ContainerId: "c2"}) // check has succeeded
		release := r.agent.BlockReply("WaitProcess")
		waited := make(chan error, 1)
		go func() {
			_, err := r.client().do(context.Background(), "WaitProcess", &agentpb.WaitProcessRequest{ContainerId: "c1"})
			waited <- err
		}()
		await(t, r, "WaitProcess", 2)
		if err := r.agent.Exit("c1", "", 0); err != nil {
			t.Fatal(err)
		}
		c.must("RemoveContainer", remove)
		c.fails(codes.PermissionDenied, "CreateContainer", createContainer("c1", "verify")) // the id is taken
		c.must("CreateContainer", createContainer("c3", "verify"))
		release()
		if err := <-waited; err != nil {
			t.Fatal(err)
		}
		c.fails(codes.PermissionDenied, "CreateContainer", createContainer("c4", "main"))
		c.must("StartContainer", &agentpb.StartContainerRequest{ContainerId: "c3"})
		if err := r.agent.Exit("c3", "", 0); err != nil {
			t.Fatal(err)
		}
		c.must("WaitProcess", &agentpb.WaitProcessRequest{ContainerId: "c3"})
		c.must("CreateContainer", createContainer("c5", "main"))
	})
	t.Run("a request", func(t *testing.T) {
		r, c := start(t)
		release := r.agent.Block("ExecProcess")
		done := make(chan error, 1)
		exec := func(id string) *agentpb.ExecProcessRequest {
			return &agentpb.ExecProcessRequest{ContainerId: id, ExecId: "e1", Process: &agentpb.Process{Args: []string{"cat"}, Cwd: "/"}}
		}
		go func() {
			_, err := r.client().do(context.Background(), "ExecProcess", exec("c1"))
			done <- err
		}()
		await(t, r, "ExecProcess", 1)
		if err := r.agent.Exit("c1", "", 0); err != nil {
			t.Fatal(err)
		}
		c.must("WaitProcess", &agentpb.WaitProcessRequest{ContainerId: "c1"})
		c.must("RemoveContainer", remove)
		c.fails(codes.PermissionDenied, "CreateContainer", createContainer("c1", "verify"))
		c.must("CreateContainer", createContainer("c2", "verify"))
		c.fails(codes.PermissionDenied, "ExecProcess", exec("c2"))
		release()
		if err := <-done; err == nil {
			t.Error("a command runs in a container for which it was not judged")
		}
	})
}
