// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestOnlyPID1OrASupervisorRuns(t *testing.T) {
	var log strings.Builder
	if code := run(nil, &log); code != 1 || !strings.Contains(log.String(), "must be PID 1") {
		t.Errorf("exit %d, %q", code, log.String())
	}
}

func TestReadyIsReadFromNotifyMessages(t *testing.T) {
	tests := map[string]bool{
		"READY=1": true, "STATUS=x\nREADY=1\n": true, "READY=0": false, "XREADY=1": false, "": false, "STOPPING=1": false,
	}
	for message, want := range tests {
		if got := isReady(message); got != want {
			t.Errorf("isReady(%q) = %t", message, got)
		}
	}
}

func TestARestartLoopEnds(t *testing.T) {
	s := &supervisor{}
	now := time.Unix(0, 0)
	for i := range maxStarts {
		if !s.mayStart(now.Add(time.Duration(i) * time.Second)) {
			t.Fatalf("start %d refused", i)
		}
	}
	if s.mayStart(now.Add(maxStarts * time.Second)) {
		t.Error("one start too many within the window")
	}
	if !s.mayStart(now.Add(3 * startWindow)) {
		t.Error("start refused after a quiet time")
	}
}

func TestOutputGoesNowhereButInADebugBuild(t *testing.T) {
	dir := t.TempDir()
	mark, null := filepath.Join(dir, "console"), filepath.Join(dir, "null")
	if _, err := outputOf(mark, null); err == nil {
		t.Error("without /dev/null, output goes on to the console")
	}
	if err := os.WriteFile(null, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := outputOf(mark, null)
	if err != nil || f.Name() != null {
		t.Fatalf("output goes to %v, %v; want %s", f.Name(), err, null)
	}
	f.Close()
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err := outputOf(mark, null); err != nil || f != os.Stdout {
		t.Errorf("a debug build's output goes to %v, %v; want the console", f, err)
	}
}
