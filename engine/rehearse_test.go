// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"context"
	"strings"
	"testing"

	"portcullis/engine"
)

func TestARehearsalKeepsStateFromRequestToRequest(t *testing.T) {
	p := compile(t, `package agent_policy
First := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/first", "value": true}]}
Second { data.pstate.first }
`)
	first, second := request("First", "{}"), request("Second", "{}")
	if err := engine.Rehearse(context.Background(), p, []engine.Request{first, second}); err != nil {
		t.Error(err)
	}
	err := engine.Rehearse(context.Background(), p, []engine.Request{second})
	if err == nil || !strings.Contains(err.Error(), "rehearse Second: denied") {
		t.Errorf("a denial is: %v", err)
	}
}
