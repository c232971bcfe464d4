// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"portcullis/agentproto/agentpb"
)

// vsockListeners returns the ports that vsock sockets listen on, sorted, of every network namespace: the kernel lists them by
// namespace, and policyd has one of its own.
func vsockListeners(t *testing.T) []uint32 {
	t.Helper()
	runtime.LockOSThread() // for good: the thread ends with the test, wherever it is
	links, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	var ports []uint32
	for _, link := range links {
		name, err := os.Readlink(link)
		if err != nil || seen[name] {
			continue // a process that has ended
		}
		seen[name] = true
		namespace, err := os.Open(link)
		if err != nil {
			continue
		}
		err = unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET)
		namespace.Close()
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, listenersHere(t)...)
	}
	slices.Sort(ports)
	return ports
}

// onlyTheGateListens wants no other way out of the guest by vsock than through the gate.
func onlyTheGateListens(t *testing.T) {
	if got := vsockListeners(t); !slices.Equal(got, []uint32{agentPort}) {
		t.Errorf("vsock listeners on ports %d, want %d alone", got, agentPort)
	}
}

// listenersHere asks the kernel for those of the thread's network namespace (linux/vm_sockets_diag.h).
func listenersHere(t *testing.T) []uint32 {
	t.Helper()
	const (
		diagByFamily = 20 // SOCK_DIAG_BY_FAMILY
		listening    = 10 // TCP_LISTEN, which vsock uses too
		header       = 16 // struct nlmsghdr
		size         = header + 24
		portAt       = header + 8 // vsock_diag_msg.vdiag_src_port
	)
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	request := make([]byte, size)
	binary.NativeEndian.PutUint32(request[0:], size)
	binary.NativeEndian.PutUint16(request[4:], diagByFamily)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	request[header] = unix.AF_VSOCK
	binary.NativeEndian.PutUint32(request[header+4:], 1<<listening) // states
	if err := unix.Sendto(s, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	var ports []uint32
	buffer := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(s, buffer, 0)
		if err != nil {
			t.Fatal(err)
		}
		for message := buffer[:n]; len(message) >= header; {
			length := int(binary.NativeEndian.Uint32(message))
			switch kind := binary.NativeEndian.Uint16(message[4:]); {
			case kind == unix.NLMSG_DONE:
				return ports
			case kind == unix.NLMSG_ERROR || length < header || length > len(message):
				t.Fatalf("vsock_diag: message of type %d, %d bytes", kind, length)
			case message[header+2] == listening:
				ports = append(ports, binary.NativeEndian.Uint32(message[portAt:]))
			}
			message = message[min(len(message), (length+3)&^3):]
		}
	}
}

// TestKernelCommandLine runs in a guest whose command line asks the agent for a debug console, log and passfd ports, another
// configuration and, by systemd.setenv=, another address.
func TestKernelCommandLine(t *testing.T) {
	skipOutside(t)
	h := dial(t)
	h.denied("ListRoutesRequest", &agentpb.ListRoutesRequest{}, codes.PermissionDenied, "policy-not-set")
	policy := read(t, policyPath)
	if err := h.setPolicy(policy); err != nil {
		t.Fatal(err)
	}
	create := readCases(t)[0]
	h.served(create) // so the agent is up
	onlyTheGateListens(t)
	// The same agent without its configuration file obeys that command line: the test would see it.
	agent := exec.Command("/usr/bin/kata-agent")
	agent.Env = []string{"KATA_AGENT_SERVER_ADDR=unix:///tmp/unguarded.sock"}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer agent.Process.Kill()
	want := []uint32{agentPort, 1026, 1027, 1028}
	for deadline := time.Now().Add(wait); ; time.Sleep(pause) {
		got := vsockListeners(t)
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("an agent without --config listens on %d, want %d: this test could not have failed", got, want)
		}
	}
}

// TestCredentials runs in a guest to whose systemd the host gives credentials.
func TestCredentials(t *testing.T) {
	skipOutside(t)
	dial(t) // policyd starts after what takes credentials
	for _, name := range []string{"tmpfiles.extra", "sysctl.extra"} {
		if _, err := os.Stat("/run/credentials/@system/" + name); err != nil {
			t.Errorf("systemd did not take the host's %s: %v; this test could not have failed", name, err)
		}
	}
	if _, err := os.Lstat("/run/owned"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the host made a file in the guest: %v", err)
	}
	if pattern := string(read(t, "/proc/sys/kernel/core_pattern")); strings.Contains(pattern, "owned") {
		t.Errorf("the host set kernel.core_pattern to %s", pattern)
	}
}

// TestStranger runs with the image's own vsock_peers, of which the loopback is none.
func TestStranger(t *testing.T) {
	skipOutside(t)
	h := dial(t)
	err := h.call("CheckRequest", &agentpb.CheckRequest{})
	if err == nil {
		t.Fatal("a peer that is not in vsock_peers got an answer")
	}
	if code := status.Code(err); code == codes.PermissionDenied || code == codes.DeadlineExceeded {
		t.Errorf("got %v, want the connection closed", err)
	}
	t.Logf("refused: %v", err)
	if policydPID(t) == 0 {
		t.Error("policyd does not run")
	}
}

// TestFlippedBit runs in a guest in which policyd's file does not match the root hash. It should never get here; when it
// does, nothing may be reachable.
func TestFlippedBit(t *testing.T) {
	skipOutside(t)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		conn, err := vsock.Dial(loopback, agentPort, nil)
		if err == nil {
			conn.Close()
			t.Fatal("policyd listens")
		}
		if errors.Is(err, unix.EAFNOSUPPORT) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Error("the guest runs on")
}
