// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"portcullis/agentproto/agentpb"
	"portcullis/engine/binding"
	"portcullis/internal/hostdatatest"
	"portcullis/internal/measuretest"
	"portcullis/measure"
)

// childVar tells a re-executed test binary to be policyd, and to kill itself after a step of a measurement.
const childVar = "POLICYD_TEST_CHILD"

// childTask is what the child is to do.
type childTask struct {
	Dir    string
	Config config
	Step   measure.Step
	Fact   int // of the pod's life, from 1; 0: the step is one of the policy's measurement
}

// TestChild is policyd in a process of its own, when the environment asks for it.
func TestChild(t *testing.T) {
	text := os.Getenv(childVar)
	if text == "" {
		return
	}
	var task childTask
	if err := json.Unmarshal([]byte(text), &task); err != nil {
		t.Fatal(err)
	}
	system, err := hostdatatest.Guest{Root: task.Dir + "/root"}.System()
	if err != nil {
		t.Fatal(err)
	}
	disks, err := hostdatatest.Disks(task.Dir + "/root")
	if err != nil {
		t.Fatal(err)
	}
	facts := 0
	g := guest{system: system, disks: disks, root: task.Dir + "/root", initdata: task.Dir + "/cc", deadline: 10 * time.Second,
		onStep: func(s measure.Step) {
			if task.Fact == 0 && s == task.Step {
				measuretest.Die()
			}
		},
		onPodStep: func(s measure.Step) {
			if s == measure.StepRead {
				facts++
			}
			if task.Fact == facts && s == task.Step {
				measuretest.Die()
			}
		}}
	if err := serve(context.Background(), task.Config, g, slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
		t.Fatal(err)
	}
}

// child starts policyd in a process that kills itself after step, and returns when it serves.
func (m *machine) child(step measure.Step) *exec.Cmd {
	m.t.Helper()
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path("notify"), Net: "unixgram"})
	if err != nil {
		m.t.Fatal(err)
	}
	defer os.Remove(m.path("notify"))
	defer notify.Close()
	task, err := json.Marshal(childTask{m.dir, m.conf, step, m.podFact})
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), childVar+"="+string(task), "NOTIFY_SOCKET="+m.path("notify"))
	cmd.Stderr = &m.log
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	if err := notify.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		m.t.Fatal(err)
	}
	message := make([]byte, 64)
	if n, err := notify.Read(message); err != nil || string(message[:n]) != "READY=1" {
		m.t.Fatalf("policyd is not ready: %q, %v", message[:n], err)
	}
	return cmd
}

// TestKilledAtEveryStep kills policyd with SIGKILL in the middle of a SetPolicy, after each step of extend, log and swap, and
// starts it again: there is exactly one extend, and until the policy is sent again nothing is open.
func TestKilledAtEveryStep(t *testing.T) {
	for _, trust := range []string{"asserted", ""} { // without trust the default policy is open to everything
		for step := measure.StepRead; step <= measure.StepCommitted; step++ {
			t.Run(step.String()+", trust "+trust, func(t *testing.T) {
				m := newMachine(t, hostdatatest.Guest{}).withTPM(trust)
				cmd := m.child(step)
				if err := m.request("SetPolicy", &agentpb.SetPolicyRequest{Policy: podPolicy}); err == nil {
					t.Error("SetPolicy was answered")
				}
				var exit *exec.ExitError
				if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Fatalf("policyd ended with %v, want SIGKILL", err)
				}
				m.boot()
				m.agentUp()
				measured := step >= measure.StepExtended
				if measured {
					m.extendedBy(sum256(podPolicy))
					m.sandbox(binding.CodeNotSet)
					m.setPolicy(otherPolicy, binding.CodeAlreadySet)
					m.sandbox(binding.CodeNotSet)
				} else {
					m.extendedBy()
				}
				m.setPolicy(podPolicy, "")
				m.extendedBy(sum256(podPolicy))
				m.sandbox("")
			})
		}
	}
}

// TestKilledAfterTheSwap: the journal and the register both know the policy, and a restart goes on with it.
func TestKilledAfterTheSwap(t *testing.T) {
	m := newMachine(t, hostdatatest.Guest{}).withTPM("asserted")
	cmd := m.child(-1)
	m.setPolicy(podPolicy, "")
	m.agentUp()
	m.sandbox("")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	r := m.boot() // beside the running agent
	if err := r.d.chain.Denial(); err != nil {
		t.Fatal(err)
	}
	m.setPolicy(podPolicy, "")
	m.extendedBy(sum256(podPolicy))
	if !r.d.chain.Status(t.Context()).Ran {
		t.Error("the restarted policyd does not know that requests ran")
	}
}

// TestStateLostBesideARunningAgent: without its journal policyd lets a pod end, and nothing else.
func TestStateLostBesideARunningAgent(t *testing.T) {
	m := newMachine(t, hostdatatest.Guest{})
	first := m.boot()
	m.agentUp()
	m.sandbox("")
	first.stop()
	if err := os.RemoveAll(m.path("run")); err != nil {
		t.Fatal(err)
	}
	m.boot()
	m.sandbox(binding.CodeStateLost)
	m.setPolicy(podPolicy, binding.CodeStateLost)
	if err := m.request("DestroySandbox", &agentpb.DestroySandboxRequest{}); err != nil {
		t.Errorf("DestroySandbox: %v", err)
	}
}
