// SPDX-License-Identifier: Apache-2.0

// Init is PID 1 of a guest without systemd, in which kata-agent would be PID 1 itself (AGENT_INIT=yes).
//
// # Synopsis
//
//	init              as PID 1
//	init supervise    started by the first, the parent of policyd
//
// As PID 1 it clears the environment, mounts what policyd needs, starts policyd under a supervisor, waits until policyd
// listens, and becomes kata-agent with a configuration file. The kernel puts every word of its command line that it does not
// know into PID 1's environment or arguments, and the host writes that line: none of it reaches policyd or the agent.
//
// What policyd and the agent print goes nowhere, because the console is the host's; in a debug build, which has a file that says so,
// it goes to the console.
//
// Any failure ends PID 1, on which the kernel panics: a guest without a gate does not run.
package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Paths of the measured root filesystem, and of /run.
const (
	selfPath    = "/usr/libexec/portcullis/init"
	policydPath = "/usr/bin/policyd"
	configPath  = "/etc/portcullis/config.toml"
	agentPath   = "/usr/bin/kata-agent"
	agentConfig = "/etc/portcullis/agent.toml"
	consoleMark = "/etc/portcullis/console" // of a debug build
	runDir      = "/run/portcullis"
	agentSocket = runDir + "/agent.sock"
)

// readyTimeout bounds how long policyd may take to listen. It reads initdata and the TEE's report in that time.
const readyTimeout = 60 * time.Second

func main() {
	os.Exit(run(os.Args[1:], os.Stderr))
}

// run is the whole program but for the process around it. It returns only on failure, and when a supervisor gives up.
func run(args []string, log io.Writer) int {
	err := errors.New("must be PID 1, or be asked to supervise")
	switch {
	case os.Getpid() == 1:
		err = boot(log)
	case len(args) == 1 && args[0] == superviseVerb:
		err = newSupervisor(log).run()
	}
	fmt.Fprintln(log, "portcullis-init:", err)
	return 1
}

// boot does PID 1's work and becomes the agent.
func boot(log io.Writer) error {
	os.Clearenv()
	if err := mountAll(); err != nil {
		return err
	}
	if err := os.Mkdir(runDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make directory of sockets: %w", err)
	}
	output, err := outputOf(consoleMark, "/dev/null")
	if err != nil {
		return err
	}
	if err := startSupervisor(output); err != nil {
		return err
	}
	// The agent does not replace a socket that is left of an earlier run.
	if err := os.Remove(agentSocket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove stale agent socket: %w", err)
	}
	fmt.Fprintln(log, "portcullis-init: policyd listens; starting", agentPath)
	if err := redirect(output); err != nil {
		return err
	}
	err = unix.Exec(agentPath, []string{agentPath, "--config", agentConfig}, nil)
	return fmt.Errorf("start %s: %w", agentPath, err)
}

// outputOf opens what policyd and the agent print to: the console where there is the mark of a debug build, else null. A mark that
// cannot be looked at is none.
func outputOf(mark, null string) (*os.File, error) {
	if _, err := os.Stat(mark); err == nil {
		return os.Stdout, nil
	}
	f, err := os.OpenFile(null, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("keep output from the console: %w", err)
	}
	return f, nil
}

// redirect makes output standard output and error of this process, and of what it becomes.
func redirect(output *os.File) error {
	for _, fd := range []int{unix.Stdout, unix.Stderr} {
		if int(output.Fd()) == fd {
			continue
		}
		if err := unix.Dup3(int(output.Fd()), fd, 0); err != nil {
			return fmt.Errorf("keep output from the console: %w", err)
		}
	}
	return nil
}

// startSupervisor starts the supervisor, whose output is policyd's too, and returns when policyd is ready.
func startSupervisor(output *os.File) error {
	ready, started, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start supervisor: %w", err)
	}
	defer ready.Close()
	_, err = os.StartProcess(selfPath, []string{selfPath, superviseVerb}, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{nil, output, output, started},
		Sys: &unix.SysProcAttr{Setsid: true},
	})
	started.Close()
	if err != nil {
		return fmt.Errorf("start supervisor: %w", err)
	}
	if err := ready.SetReadDeadline(time.Now().Add(readyTimeout)); err != nil {
		return fmt.Errorf("wait for policyd: %w", err)
	}
	if _, err := io.ReadFull(ready, make([]byte, 1)); err != nil {
		return fmt.Errorf("policyd did not get ready: %w", err)
	}
	return nil
}
