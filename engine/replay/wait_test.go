// SPDX-License-Identifier: Apache-2.0

package replay_test

import (
	"strings"
	"testing"

	"portcullis/engine"
	"portcullis/engine/replay"
	"portcullis/engine/trace"
)

// inTurn lets app be created once first has ended with 0, and was not signalled before.
const inTurn = `package agent_policy

import rego.v1

CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": concat("", ["/pstate/is:", input.container_id]), "value": true}]} if {
	input.container_id == "first"
}

CreateContainerRequest if data.pstate["ended:first"]

SignalProcessRequest := {"allowed": true, "ops": [{"op": "add", "path": concat("", ["/pstate/signalled:", input.container_id]), "value": true}]}

RemoveContainerRequest := {"allowed": true, "ops": [{"op": "remove", "path": concat("", ["/pstate/is:", input.container_id])}]}

default WaitProcessRequest := true

WaitProcessResponse := {"allowed": true, "ops": [{"op": "add", "path": concat("", ["/pstate/ended:", input.request.container_id]), "value": true}]} if {
	input.response.status == 0
	data.pstate[concat("", ["is:", input.request.container_id])]
	not data.pstate[concat("", ["signalled:", input.request.container_id])]
}
`

// A recording of a shim or an agent does not hold how a process ended: what depends on that is unknown, and no denial.
func TestHowAProcessEndedIsUnknownWhereNoGateHasWrittenIt(t *testing.T) {
	const (
		create = `{"kind":"CreateContainerRequest","request":{"container_id":"first"}}`
		wait   = `{"kind":"WaitProcessRequest","request":{"container_id":"first","exec_id":"first"}}`
		exec   = `{"kind":"WaitProcessRequest","request":{"container_id":"first","exec_id":"probe"}}`
		signal = `{"kind":"SignalProcessRequest","request":{"container_id":"first"}}`
		remove = `{"kind":"RemoveContainerRequest","request":{"container_id":"first"}}`
		app    = `{"kind":"CreateContainerRequest","request":{"container_id":"app"}}`
		failed = `{"kind":"WaitProcessResponse","request":{"request":{"container_id":"first"},"response":{"status":1}}}`
		ended  = `{"kind":"WaitProcessResponse","request":{"request":{"container_id":"first"},"response":{"status":0}}}`
	)
	for name, test := range map[string]struct {
		recording []string
		want      replay.Outcome
	}{
		"it is waited for":               {[]string{create, wait, app}, replay.Unknown},
		"then removed, as shims do":      {[]string{create, wait, signal, wait, remove, app}, replay.Unknown},
		"nobody waits":                   {[]string{create, app}, replay.Denied},
		"a command is waited for":        {[]string{create, exec, app}, replay.Denied},
		"it was signalled, then awaited": {[]string{create, signal, wait, remove, app}, replay.Denied},
		"the gate saw a failure":         {[]string{create, wait, failed, app}, replay.Denied},
		"the gate saw its end":           {[]string{create, wait, ended, app}, replay.Allowed},
	} {
		t.Run(name, func(t *testing.T) {
			last := replayed(t, test.recording)
			if last.Outcome != test.want || (last.Missing == "") != (test.want != replay.Unknown) {
				t.Errorf("got %+v, want %v", last, test.want)
			}
		})
	}
}

// replayed is the decision of the last request of a recording.
func replayed(t *testing.T, recording []string) (last replay.Decision) {
	t.Helper()
	c, err := engine.NewCompiler(engine.CompilerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Compile(t.Context(), []byte(inTurn))
	if err != nil {
		t.Fatal(err)
	}
	e := engine.New(p, engine.Options{})
	defer e.Close()
	s := replay.New(e)
	r := trace.NewReader(strings.NewReader(strings.Join(recording, "\n") + "\n"))
	for range recording {
		record, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if last, err = s.Judge(t.Context(), record); err != nil {
			t.Fatal(err)
		}
	}
	return last
}
