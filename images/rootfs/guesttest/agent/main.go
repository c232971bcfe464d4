// SPDX-License-Identifier: Apache-2.0

// Agent is the kata-agent of the test guest: a fake one (package agenttest) that is configured as the real one is.
//
// # Synopsis
//
//	kata-agent [--config FILE]
//
// With a file it reads nothing else but the four variables of the environment that override it. Without one it takes the
// kernel command line: agent.config_file names a file to read instead, agent.server_addr, agent.debug_console with
// agent.debug_console_vport, agent.log_vport and agent.passfd_listener_port open what their names say. The listeners other than
// the server's greet and close: that they are there is what a test asks.
//
// Its log goes to standard output, and from level info on holds each container's whole specification, as the real one's does.
//
// As PID 1 it mounts what the real one mounts, unless a file system of that type is there, and starts the guest's tests.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"

	"portcullis/engine/gate"
	"portcullis/internal/agenttest"
)

// testBinary is started by an agent that is PID 1.
const testBinary = "/guesttest/guest.test"

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "fake kata-agent:", err)
		os.Exit(1)
	}
}

// settings are the keys of the agent's configuration that open listeners.
type settings struct {
	ServerAddr        string `toml:"server_addr"`
	DebugConsole      bool   `toml:"debug_console"`
	DebugConsoleVport uint32 `toml:"debug_console_vport"`
	LogVport          uint32 `toml:"log_vport"`
	PassfdPort        uint32 `toml:"passfd_listener_port"`
	LogLevel          string `toml:"log_level"`
}

func run(ctx context.Context, args []string) error {
	if os.Getpid() == 1 {
		if err := becomeInit(); err != nil {
			return err
		}
	}
	s, err := configure(args)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "fake kata-agent: serving %s\n", s.ServerAddr)
	for name, port := range s.extraPorts() {
		if err := greet(name, port); err != nil {
			return err
		}
	}
	address, err := gate.ParseAddress(s.ServerAddr)
	if err != nil {
		return err
	}
	agent := agenttest.New(agenttest.Options{SharedDir: "/run/kata-containers", Log: s.log})
	if address.Path != "" {
		return agent.ListenAndServe(ctx, address.Path)
	}
	l, err := vsock.ListenContextID(address.CID, address.Port, nil)
	if err != nil {
		return err
	}
	return agent.Serve(ctx, l)
}

func configure(args []string) (settings, error) {
	s := settings{ServerAddr: "vsock://-1:1024", LogLevel: "info"}
	if len(args) == 2 && args[0] == "--config" {
		if _, err := toml.DecodeFile(args[1], &s); err != nil {
			return s, err
		}
	} else if len(args) > 0 {
		return s, fmt.Errorf("unexpected arguments %q", args)
	} else if err := s.readCmdline(); err != nil {
		return s, err
	}
	if addr, ok := os.LookupEnv("KATA_AGENT_SERVER_ADDR"); ok {
		s.ServerAddr = addr
	}
	if level, ok := os.LookupEnv("KATA_AGENT_LOG_LEVEL"); ok {
		s.LogLevel = level
	}
	return s, nil
}

// log prints a request as the real agent does.
func (s *settings) log(r agenttest.Request) {
	switch s.LogLevel {
	case "trace", "debug", "info":
		text, err := protojson.Marshal(r.Message)
		fmt.Printf("{\"level\":\"INFO\",\"msg\":\"%s\",\"req\":%s,\"err\":\"%v\"}\n", r.Method, text, err)
	}
}

func (s *settings) readCmdline() error {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	for _, word := range strings.Fields(string(cmdline)) {
		key, value, _ := strings.Cut(word, "=")
		port, _ := strconv.ParseUint(value, 10, 32)
		switch key {
		case "agent.config_file":
			_, err := toml.DecodeFile(value, s)
			return err
		case "agent.log":
			s.LogLevel = value
		case "agent.server_addr":
			s.ServerAddr = value
		case "agent.debug_console":
			s.DebugConsole = true
		case "agent.debug_console_vport":
			s.DebugConsoleVport = uint32(port)
		case "agent.log_vport":
			s.LogVport = uint32(port)
		case "agent.passfd_listener_port":
			s.PassfdPort = uint32(port)
		}
	}
	return nil
}

func (s *settings) extraPorts() map[string]uint32 {
	ports := map[string]uint32{"log": s.LogVport, "passfd": s.PassfdPort}
	if s.DebugConsole {
		ports["debug console"] = s.DebugConsoleVport
	}
	for name, port := range ports {
		if port == 0 {
			delete(ports, name)
		}
	}
	return ports
}

// greet opens a listener that says what it is.
func greet(name string, port uint32) error {
	l, err := vsock.ListenContextID(gate.AnyCID, port, nil)
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				fmt.Fprintln(conn, name)
				conn.Close()
			}
		}
	}()
	return nil
}

// becomeInit does what the agent does as PID 1.
func becomeInit() error {
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return err
	}
	for _, m := range []struct{ kind, path string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/run"},
	} {
		if strings.Contains(string(mounts), " "+m.path+" "+m.kind+" ") {
			continue
		}
		if err := unix.Mount(m.kind, m.path, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.path, err)
		}
	}
	go reap()
	test := exec.Command(testBinary)
	test.Stdout, test.Stderr = os.Stdout, os.Stderr
	return test.Start()
}

// reap waits for orphans, as PID 1 has to.
func reap() {
	children := make(chan os.Signal, 16)
	signal.Notify(children, unix.SIGCHLD)
	for range children {
		for {
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}
