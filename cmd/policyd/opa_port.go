// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"portcullis/engine/rest"
)

// portFlag tells the process that serves, which file descriptor is its port. It is not for people.
const portFlag = "portcullis-port-fd"

// panicExit is the exit code of a Go program that panicked.
const panicExit = 2

// holdPort takes the port of the REST API and starts the program once more to serve it. When that process crashes this one keeps the
// port, and answers nothing: else a container, which shares the agent's network, could take it and answer the agent. The process
// is not started again, since what it knew is gone. Any other end is this process's too.
func holdPort(ctx context.Context, address string, args []string, std stdio, logger *slog.Logger) int {
	port, err := takePort(ctx, address)
	if err != nil {
		logger.Error("opa stops", "error", err)
		return exitFail
	}
	defer port.Close()
	runtime.LockOSThread() // the process below ends with the thread that starts it
	cmd := exec.Command("/proc/self/exe", append(args, fmt.Sprintf("--%s=3", portFlag))...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = std.out, std.err, []*os.File{port}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		logger.Error("opa stops", "error", err)
		return exitFail
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ctx.Done():
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		<-ended
		return cmd.ProcessState.ExitCode()
	case <-ended:
	}
	if state := cmd.ProcessState; state.Exited() && state.ExitCode() != panicExit {
		return state.ExitCode()
	}
	logger.Error("what served has crashed: its port is kept, and nothing is answered any more", "state", cmd.ProcessState.String())
	<-ctx.Done()
	return exitFail
}

// takePort listens on a loopback address.
func takePort(ctx context.Context, address string) (*os.File, error) {
	a, err := rest.ParseAddress(address)
	if err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", a.String())
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	defer l.Close()
	t, ok := l.(*net.TCPListener)
	if !ok {
		return nil, errors.New("not a TCP listener")
	}
	return t.File()
}

// heldPort is the port that another process holds for this one.
func heldPort(fd int) (net.Listener, error) {
	f := os.NewFile(uintptr(fd), "port")
	if f == nil {
		return nil, fmt.Errorf("no file descriptor %d", fd)
	}
	defer f.Close()
	return net.FileListener(f)
}
