// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/engine/gate"
	"portcullis/internal/agenttest"
)

// Recorded requests go over ttrpc to a live gate: a denial is an exit code, an agent that cannot is not.
func TestSendToALiveGate(t *testing.T) {
	dir := t.TempDir()
	agent := agenttest.New(agenttest.Options{})
	t.Cleanup(agent.Kill)
	socket, address := gate.Address{Path: filepath.Join(dir, "agent.sock")}, gate.Address{Path: filepath.Join(dir, "gate.sock")}
	if err := agent.Start(socket.Path); err != nil {
		t.Fatal(err)
	}
	stop, err := serveDemo(context.Background(), address, socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	send := func(lines string) (int, string) {
		var out, errs bytes.Buffer
		code := run(context.Background(), []string{"send", "--address", address.String()}, stdio{strings.NewReader(lines), &out, &errs})
		return code, out.String() + errs.String()
	}
	code, out := send(`{"kind":"GuestDetailsRequest","request":{}}`)
	if code != exitNo || !strings.Contains(out, "DENY GuestDetailsRequest: GuestDetailsRequest is blocked by policy: policy-not-set") {
		t.Errorf("before a policy is set: %d\n%s", code, out)
	}
	set := func(name, text string) (int, string) {
		var out, errs bytes.Buffer
		code := run(context.Background(), []string{"set-policy", address.String(), name}, stdio{strings.NewReader(text), &out, &errs})
		return code, out.String() + errs.String()
	}
	if code, out := set("-", "package agent_policy\n\nx := }\n"); code != exitNo || !strings.HasPrefix(out, "DENY SetPolicyRequest: ") {
		t.Errorf("a policy that does not compile: %d\n%s", code, out)
	}
	if code, out := set("demo/policy.rego", ""); code != exitOK || !strings.HasPrefix(out, "ALLOW SetPolicyRequest: sha256 ") {
		t.Errorf("set the policy: %d\n%s", code, out)
	}
	if code, out := set("-", "package agent_policy\n"); code != exitNo || !strings.HasPrefix(out, "DENY SetPolicyRequest: ") {
		t.Errorf("set another policy: %d\n%s", code, out)
	}
	code, out = send(`{"kind":"GuestDetailsRequest","request":{},"case":"details","allowed":true}
{"kind":"StatsContainerRequest","request":{"container_id":"none"}}
{"kind":"CopyFileRequest","request":{"path":"/run/kata-containers/shared/containers/x","file_type":"Regular","symlink_target":null,"file_size":5,"file_mode":33188,"dir_mode":493,"uid":0,"gid":0,"offset":0,"data_sha256":"00","data_size":5}}
`)
	if code != exitOK || !strings.Contains(out, "ALLOW GuestDetailsRequest details\n  answer: {\"agent_details\":") || !strings.Contains(out, "but the agent says") ||
		!strings.HasSuffix(out, "3 requests: 3 allowed, 0 denied, 0 mismatches\n") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}
