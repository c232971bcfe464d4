// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"context"
	"testing"

	"portcullis/agentproto/agentpb"
)

func TestDecisionsAreCountedByRequest(t *testing.T) {
	r := newRig(t, rigOptions{policy: onePod})
	c := r.client()
	c.must("CreateSandbox", &agentpb.CreateSandboxRequest{SandboxId: "s"})
	c.must("CreateContainer", createContainer("aaa", "pause"))
	for _, id := range []string{"bbb", "ccc"} {
		if _, err := c.do(context.Background(), "CreateContainer", createContainer(id, "pause")); err == nil {
			t.Fatal("a second container was created")
		}
	}
	got := map[string][2]uint64{}
	for _, n := range r.gate.Counts() {
		got[n.Request] = [2]uint64{n.Allowed, n.Denied}
		if last := n.Within[len(n.Within)-1]; last > n.Allowed+n.Denied || n.Seconds <= 0 {
			t.Errorf("%s: %d of %d within the last bound, %g seconds", n.Request, last, n.Allowed+n.Denied, n.Seconds)
		}
	}
	if len(got) != 2 || got["CreateSandboxRequest"] != [2]uint64{1, 0} || got["CreateContainerRequest"] != [2]uint64{1, 2} {
		t.Errorf("counted %v", got)
	}
}
