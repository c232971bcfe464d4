// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"portcullis/internal/rulestest"
	"portcullis/rules"
)

// endless is a recording of one pod whose container comes and goes, of at least size bytes, made while it is read.
type endless struct {
	size  int
	cycle []byte // what comes again and again
	rest  []byte
}

func newEndless(tb testing.TB, size int) *endless {
	tb.Helper()
	p := shop(tb)
	e := rulestest.Emulator{Policy: p, Pod: rulestest.DefaultPod(p)}
	id := map[string]any{"container_id": rulestest.ID("web"), "timeout": 0}
	requests := []rulestest.Request{e.CreateContainer("web"), {Kind: "StartContainerRequest", Input: id}}
	requests = append(requests, e.ExecProcess("web", []string{"/bin/web", "--check"}), e.ExecProcess("web", []string{"sh"}))
	text, err := p.Full(rules.Text())
	if err != nil {
		tb.Fatal(err)
	}
	requests = append(requests, rulestest.Request{Kind: "SetPolicyRequest", Input: map[string]any{"policy": string(text)}},
		rulestest.Request{Kind: "RemoveContainerRequest", Input: id})
	return &endless{size: size, cycle: dumped(tb, requests...), rest: dumped(tb, e.CreateSandbox())}
}

// dumped are requests as an agent's decision log has them.
func dumped(tb testing.TB, requests ...rulestest.Request) []byte {
	tb.Helper()
	var out bytes.Buffer
	for _, r := range requests {
		raw, err := json.Marshal(r.Input)
		if err != nil {
			tb.Fatal(err)
		}
		fmt.Fprintf(&out, "[\"ep\":\"%s\",{\"input\":%s}],\n", r.Kind, raw)
	}
	return out.Bytes()
}

func (d *endless) Read(p []byte) (int, error) {
	if len(d.rest) == 0 {
		if d.size <= 0 {
			return 0, io.EOF
		}
		d.rest = d.cycle
		d.size -= len(d.cycle)
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

// The peak of a process of its own is compared for a short and a long recording.
func TestALongDumpReplaysInConstantMemory(t *testing.T) {
	policy := filepath.Join(t.TempDir(), "shop.rego")
	writePolicy(t, shop(t), policy)
	short, _ := peakOfReplay(t, policy, 4<<20)
	long, said := peakOfReplay(t, policy, 36<<20)
	t.Logf("peak: %d kB for 4 MB, %d kB for 36 MB", short, long)
	if grown := long - short; grown > 12<<10 {
		t.Errorf("32 MB more of recording take %d kB more memory", grown)
	}
	if !regexp.MustCompile(`(?m)^\d+ MB, [\d.]+ MB/s$`).MatchString(said) {
		t.Errorf("no progress is shown: %q", said)
	}
}

// peakOfReplay replays a recording of size bytes from a pipe, and gives the most memory that was resident, in kB, and standard error.
func peakOfReplay(t *testing.T, policy string, size int) (int64, string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "replay", "--policy", policy)
	cmd.Args[0] = "policyctl"
	var last tail
	var said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = newEndless(t, size), &last, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("replay: %v\n%s", err, &said)
	}
	if !strings.Contains(string(last), " 0 mismatches\n") || strings.Contains(string(last), " 0 denied") {
		t.Fatalf("replay ends with %q", last)
	}
	return cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss, said.String()
}

// tail keeps the end of what is written.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	*t = (*t)[max(0, len(*t)-200):]
	return len(p), nil
}
