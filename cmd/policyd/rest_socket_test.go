// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// unit starts policyd as systemd does with policyd-rest.socket, whose listener is given, under that socket's name.
func unit(t *testing.T, dir, name string, listener *os.File, address string) (*exec.Cmd, *lockedBuffer) {
	t.Helper()
	config := filepath.Join(dir, "config.toml")
	text := "[gate]\nlisten = []\nrest = \"" + address + "\"\n[policy]\ndefault = \"" + filepath.Join(dir, "default.rego") + "\"\n" +
		"[binding]\nmode = \"off\"\ninitdata = \"off\"\n[log]\nevents = \"" + filepath.Join(dir, "run/measure.jsonseq") + "\"\n"
	for path, content := range map[string]string{config: text, filepath.Join(dir, "default.rego"): allowingDefault} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// systemd knows the process's number, which the shell keeps.
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=`+name+` exec "$0" --config "$1"`, buildPolicyd(t), config)
	cmd.ExtraFiles = []*os.File{listener}
	said := &lockedBuffer{}
	cmd.Stderr, cmd.Stdout = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, said
}

// TestNobodyTakesThePortOfADeadDaemon: what answers the agent on its port decides in policyd's place.
func TestNobodyTakesThePortOfADeadDaemon(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	held, err := l.(*net.TCPListener).File() // as PID 1 holds it
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	l.Close()
	dir := t.TempDir()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	healthy := func() {
		t.Helper()
		resp, err := client.Get("http://" + address + "/health")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	first, _ := unit(t, dir, socketName, held, address)
	healthy()
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	if taken, err := net.Listen("tcp", address); err == nil {
		taken.Close()
		t.Error("another process took the port")
	}
	unit(t, dir, socketName, held, address)
	healthy()
}

func TestOnlyTheSocketOfTheConfigurationIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	held, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for name, tt := range map[string]struct{ socket, address string }{
		"another name":    {"other", l.Addr().String()},
		"another address": {socketName, "127.0.0.1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd, said := unit(t, t.TempDir(), tt.socket, held, tt.address)
			defer time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() }).Stop()
			if err := cmd.Wait(); err == nil || !strings.Contains(said.String(), "take the sockets of systemd") {
				t.Errorf("policyd ended with %v: %s", err, said)
			}
		})
	}
}
