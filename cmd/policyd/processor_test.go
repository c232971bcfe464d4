// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"portcullis/agentproto/agentpb"
	"portcullis/engine"
)

// endless decides about pausing a container in a builtin that takes minutes, makes no garbage and cannot be cancelled.
const endless = `package agent_policy

import rego.v1

default SetPolicyRequest := true
default CreateSandboxRequest := true
default GuestDetailsRequest := true

text := sprintf("%0400000d", [0])

PauseContainerRequest if regex.match("^((0|00|000){1,200})+c", text)
`

// On one processor an evaluation ends at its deadline, and others are served meanwhile.
func TestAnEvaluationEndsOnOneProcessor(t *testing.T) {
	t.Setenv("GOMAXPROCS", "1")
	p := startProcess(t, setPolicyOnly)
	p.must("SetPolicy", &agentpb.SetPolicyRequest{Policy: endless})
	p.must("CreateSandbox", &agentpb.CreateSandboxRequest{SandboxId: "pod"})
	one, other := p.dial(), p.dial()
	defer one.Close()
	defer other.Close()
	details := func() error { return p.callOn(other, "GetGuestDetails", &agentpb.GuestDetailsRequest{}) }
	if err := errors.Join(details(), p.callOn(one, "GetGuestDetails", &agentpb.GuestDetailsRequest{})); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond) // until the daemon is idle, and so is Go's monitor in it
	began := time.Now()
	denied := make(chan error, 1)
	go func() { denied <- p.callOn(one, "PauseContainer", &agentpb.PauseContainerRequest{ContainerId: "app"}) }()
	time.Sleep(100 * time.Millisecond)
	if err := details(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("another request was answered after %v", took)
	}
	err := <-denied
	if err == nil || !strings.Contains(err.Error(), engine.ErrDeadline.Error()) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 2*engine.DefaultTimeout {
		t.Errorf("denied after %v", took)
	}
}
