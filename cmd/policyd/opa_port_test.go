// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestNobodyTakesThePortOfACrashedOPA: an agent that started it asks on, whoever answers.
func TestNobodyTakesThePortOfACrashedOPA(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	dir := t.TempDir()
	opa, policy := filepath.Join(dir, "opa"), filepath.Join(dir, "default.rego")
	if err := os.Symlink(buildPolicyd(t), opa); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(policy, []byte(allowingDefault), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(opa, "run", "--server", "--addr", address, policy)
	said := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	eventually(t, func() bool {
		resp, err := client.Get("http://" + address + "/health")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil
	}, said)
	if err := syscall.Kill(childOf(t, cmd.Process.Pid), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return strings.Contains(said.String(), "its port is kept") }, said)
	if taken, err := net.Listen("tcp", address); err == nil {
		taken.Close()
		t.Error("another process took the port")
	}
	client.Timeout = 300 * time.Millisecond
	if resp, err := client.Get("http://" + address + "/health"); err == nil {
		resp.Body.Close()
		t.Errorf("somebody answers: %s", resp.Status)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != exitFail {
		t.Errorf("it ended with %v", err)
	}
}

// eventually waits until done says so.
func eventually(t *testing.T, done func() bool, said *lockedBuffer) {
	t.Helper()
	for range 600 {
		if done() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("it did not come to pass: %s", said)
}

// childOf is the one process that another started.
func childOf(t *testing.T, parent int) int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		var state string
		var ppid int
		if _, err := fmt.Sscan(rest, &state, &ppid); err == nil && ppid == parent {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatal("no process serves")
	return 0
}
