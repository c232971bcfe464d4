// SPDX-License-Identifier: Apache-2.0

package interrupt_test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"portcullis/cmd/interrupt"
)

// TestMain is the program that is interrupted when it is started as one: it says that it runs, and reads without end.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "program" {
		interrupt.Exit(func(context.Context) int {
			_, _ = os.Stdout.WriteString("running\n")
			_, _ = io.Copy(io.Discard, os.Stdin)
			return 3
		})
	}
	os.Exit(m.Run())
}

func TestExitCodeSaysWhatEndedTheProgram(t *testing.T) {
	for _, test := range []struct {
		name   string
		signal os.Signal
		want   int
	}{{"by itself", nil, 3}, {"Ctrl-C", os.Interrupt, 130}, {"SIGTERM", syscall.SIGTERM, 143}} {
		t.Run(test.name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "program")
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(out, make([]byte, len("running\n"))); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if test.signal == nil {
				in.Close()
			} else if err := cmd.Process.Signal(test.signal); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != test.want {
				t.Errorf("exit code %d, want %d", got, test.want)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("it took %s to end", took)
			}
		})
	}
}
