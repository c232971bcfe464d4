// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const superviseVerb = "supervise"

// A policyd that ends is started again, as the unit does where there is systemd: it goes on from its journal. Crashing over
// and over is a way to be asked again, so that after maxStarts in a window nothing listens any more.
const (
	restartDelay = 100 * time.Millisecond
	startWindow  = time.Minute
	maxStarts    = 10
)

// oomScore keeps the kernel from choosing policyd when memory is short.
const oomScore = "-997"

// readyFD is where PID 1 waits for a byte.
const readyFD = 3

type supervisor struct {
	log    io.Writer
	socket string // where policyd says READY=1
	starts []time.Time
	ready  *os.File
}

func newSupervisor(log io.Writer) *supervisor {
	return &supervisor{log: log, socket: runDir + "/notify.sock", ready: os.NewFile(readyFD, "ready")}
}

// run keeps policyd alive. It returns when it gives up.
func (s *supervisor) run() error {
	// What confine changes belongs to a thread, and a child inherits from the one that starts it.
	runtime.LockOSThread()
	if err := confine(); err != nil {
		return err
	}
	if err := os.RemoveAll(s.socket); err != nil {
		return err
	}
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("listen for policyd: %w", err)
	}
	go s.awaitReady(notify)
	for s.mayStart(time.Now()) {
		state, err := s.start()
		if err != nil {
			return fmt.Errorf("start policyd: %w", err)
		}
		fmt.Fprintln(s.log, "portcullis-init: policyd ended:", state)
		time.Sleep(restartDelay)
	}
	return fmt.Errorf("policyd ended %d times in %v; the guest stays closed", maxStarts, startWindow)
}

// start runs policyd until it ends.
func (s *supervisor) start() (*os.ProcessState, error) {
	p, err := os.StartProcess(policydPath, []string{policydPath, "--config", configPath}, &os.ProcAttr{
		Dir: "/", Env: []string{"NOTIFY_SOCKET=" + s.socket}, Files: []*os.File{nil, os.Stdout, os.Stderr},
	})
	if err != nil {
		return nil, err
	}
	return p.Wait()
}

// mayStart counts a start at now, unless there were too many.
func (s *supervisor) mayStart(now time.Time) bool {
	recent := s.starts[:0]
	for _, t := range s.starts {
		if now.Sub(t) < startWindow {
			recent = append(recent, t)
		}
	}
	s.starts = append(recent, now)
	return len(s.starts) <= maxStarts
}

// awaitReady tells PID 1 once that policyd listens, and reads on so that policyd's later messages go somewhere.
func (s *supervisor) awaitReady(notify *net.UnixConn) {
	message := make([]byte, 4096)
	for {
		n, err := notify.Read(message)
		if err != nil {
			return
		}
		if s.ready != nil && isReady(string(message[:n])) {
			_, err := s.ready.Write([]byte{'\n'})
			if err := errors.Join(err, s.ready.Close()); err != nil {
				fmt.Fprintln(s.log, "portcullis-init: report that policyd is ready:", err)
			}
			s.ready = nil
		}
	}
}

// isReady reads a message of sd_notify(3).
func isReady(message string) bool {
	for line := range strings.Lines(message) {
		if strings.TrimSpace(line) == "READY=1" {
			return true
		}
	}
	return false
}

// confine gives up what policyd does not need: privileges that a program file could bring, all capabilities, core dumps.
func confine() error {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(oomScore), 0); err != nil {
		return fmt.Errorf("protect policyd from the OOM killer: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("switch core dumps off: %w", err)
	}
	unix.Umask(0o077)
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	for c := uintptr(0); ; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) { // beyond the kernel's last capability
			return nil
		}
		if err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
}
