// SPDX-License-Identifier: Apache-2.0

// Package shim stands in for Kata's shim: a containerd shim (task API, version 2) that writes down what containerd asks
// of it and runs nothing. One process serves a sandbox and the containers in it, as Kata's does.
package shim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Binary is the name under which containerd looks for the runtime io.containerd.kata.v2.
const Binary = "containerd-shim-kata-v2"

// serveAction is what the shim starts itself with, the listener as its file descriptor 3.
const serveAction = "serve"

// call is the shim's command line, as containerd writes it.
type call struct{ id, bundle, action string }

func parseCall(args []string) call {
	var c call
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case "-id", "-bundle", "-namespace", "-address", "-publish-binary", "-socket":
			if i+1 == len(args) {
				continue
			}
			if args[i] == "-id" {
				c.id = args[i+1]
			} else if args[i] == "-bundle" {
				c.bundle = args[i+1]
			}
			i++
		case "-info":
			c.action = "info"
		case "start", "delete", serveAction:
			c.action = args[i]
		}
	}
	return c
}

// Main is the shim's entry point. Records go below records; plan is read whenever a container starts.
func Main(records, plan string) error {
	c := parseCall(os.Args[1:])
	switch c.action {
	case "start":
		return start(c)
	case "delete":
		return writeMessage(&task.DeleteResponse{ExitStatus: 137, ExitedAt: timestamppb.New(time.Now())})
	case serveAction:
		return serve(records, plan)
	case "info":
		return nil
	}
	return fmt.Errorf("shim: no action in %q", os.Args[1:])
}

func writeMessage(m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(b)
	return err
}

// start prints the address of the sandbox's shim, after starting it if there is none.
func start(c call) error {
	spec, err := readSpec(".")
	if err != nil {
		return fmt.Errorf("shim: read the bundle: %w", err)
	}
	sandbox := spec.Annotations["io.kubernetes.cri.sandbox-id"]
	if sandbox == "" {
		sandbox = c.id
	}
	socket := filepath.Join("/run/lab-shims", sandbox[:32])
	if sandbox == c.id {
		if err := launch(c, socket); err != nil {
			return fmt.Errorf("shim: start for sandbox %s: %w", sandbox, err)
		}
	}
	_, err = fmt.Print("unix://" + socket) // all that containerd 1.6 reads; later ones take it for task API version 2 over ttrpc
	return err
}

func launch(c call, socket string) error {
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return err
	}
	listener.SetUnlinkOnClose(false)
	file, err := listener.File()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "-id", c.id, serveAction)
	cmd.Args[0] = Binary
	cmd.ExtraFiles = []*os.File{file}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd.Start()
}

func serve(records, plan string) error {
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP)
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return fmt.Errorf("shim: take the listener: %w", err)
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		return fmt.Errorf("shim: new server: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	task.RegisterTTRPCTaskService(server, newService(records, plan, cancel))
	go func() {
		<-ctx.Done()
		time.Sleep(100 * time.Millisecond) // so that the answer to Shutdown is still sent
		server.Close()
	}()
	if err := server.Serve(ctx, listener); err != nil && !errors.Is(err, ttrpc.ErrServerClosed) {
		return fmt.Errorf("shim: serve: %w", err)
	}
	return nil
}
