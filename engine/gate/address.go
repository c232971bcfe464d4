// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

// Address is where the gate listens or the agent is: a unix socket, a vsock port, or with peer pods a TCP port, which is under TLS to
// listen on and on the loopback to connect to.
type Address struct {
	Path string // unix socket; empty for the others
	Host string // HOST:PORT; empty for the others
	TLS  bool   // with Host
	CID  uint32 // vsock context id; AnyCID to listen on all
	Port uint32 // vsock port
}

// AnyCID is the vsock context id -1 (VMADDR_CID_ANY of vm_sockets.h).
const AnyCID = unix.VMADDR_CID_ANY

// ParseAddress reads unix:///path, vsock://CID:PORT, where the CID may be -1, tls://HOST:PORT, and tcp://HOST:PORT of the loopback.
func ParseAddress(s string) (Address, error) {
	if path, ok := strings.CutPrefix(s, "unix://"); ok {
		if !strings.HasPrefix(path, "/") {
			return Address{}, fmt.Errorf("address %q: a unix socket needs an absolute path, as in unix:///run/portcullis/agent.sock", s)
		}
		return Address{Path: path}, nil
	}
	if host, ok := strings.CutPrefix(s, "tls://"); ok && isHostPort(host) {
		return Address{Host: host, TLS: true}, nil
	}
	if host, ok := strings.CutPrefix(s, "tcp://"); ok && isHostPort(host) && isLoopback(host) {
		return Address{Host: host}, nil
	}
	rest, ok := strings.CutPrefix(s, "vsock://")
	cid, port, found := strings.Cut(rest, ":")
	if !ok || !found {
		return Address{}, fmt.Errorf("address %q: want unix:///path, vsock://CID:PORT, tls://HOST:PORT or tcp://127.0.0.1:PORT", s)
	}
	p, err := strconv.ParseUint(port, 10, 32)
	if err != nil {
		return Address{}, fmt.Errorf("address %q: bad port: %w", s, err)
	}
	if cid == "-1" {
		return Address{CID: AnyCID, Port: uint32(p)}, nil
	}
	c, err := strconv.ParseUint(cid, 10, 32)
	if err != nil {
		return Address{}, fmt.Errorf("address %q: bad context id: %w", s, err)
	}
	return Address{CID: uint32(c), Port: uint32(p)}, nil
}

// isHostPort reports whether s is an IP address, or none for all, and a port.
func isHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host != "" && net.ParseIP(host) == nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

func isLoopback(hostPort string) bool {
	host, _, _ := net.SplitHostPort(hostPort)
	return net.ParseIP(host).IsLoopback()
}

// String gives the form that ParseAddress reads.
func (a Address) String() string {
	switch {
	case a.Path != "":
		return "unix://" + a.Path
	case a.Host != "" && a.TLS:
		return "tls://" + a.Host
	case a.Host != "":
		return "tcp://" + a.Host
	case a.CID == AnyCID:
		return fmt.Sprintf("vsock://-1:%d", a.Port)
	default:
		return fmt.Sprintf("vsock://%d:%d", a.CID, a.Port)
	}
}

// Dial connects to a.
func (a Address) Dial(ctx context.Context) (net.Conn, error) {
	if a.Path != "" {
		var d net.Dialer
		return d.DialContext(ctx, "unix", a.Path)
	}
	if a.Host != "" && !a.TLS {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", a.Host)
	}
	if a.TLS {
		return nil, fmt.Errorf("connect to %s: only to listen on", a)
	}
	return vsock.Dial(a.CID, a.Port, nil)
}

// Listen opens a listener on a, which is not of TCP (see ListenTLS). A unix socket is made with mode 0600, in place of a stale one that nobody listens on; a
// live one is an error.
func (a Address) Listen(ctx context.Context) (net.Listener, error) {
	if a.Host != "" {
		return nil, fmt.Errorf("listen on %s: only under TLS", a)
	}
	if a.Path == "" {
		l, err := vsock.ListenContextID(a.CID, a.Port, nil)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", a, err)
		}
		return l, nil
	}
	if err := a.removeStale(ctx); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", a.Path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", a, err)
	}
	if err := os.Chmod(a.Path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen on %s: %w", a, err)
	}
	return l, nil
}

// removeStale removes a socket that a killed process left behind.
func (a Address) removeStale(ctx context.Context) error {
	info, err := os.Lstat(a.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", a, err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("listen on %s: the path is there and is no socket", a)
	}
	if conn, err := a.Dial(ctx); err == nil {
		conn.Close()
		return fmt.Errorf("listen on %s: address already in use", a)
	}
	if err := os.Remove(a.Path); err != nil {
		return fmt.Errorf("listen on %s: remove stale socket: %w", a, err)
	}
	return nil
}

// peerName names a connection's other end for the log.
func peerName(conn net.Conn) string {
	if addr := conn.RemoteAddr(); addr != nil && addr.String() != "" {
		return addr.Network() + ":" + addr.String()
	}
	return "unix"
}

// peerAllowed reports whether a connection may be served: over vsock only from the listed context ids, over TCP only who has shown a
// certificate. A unix socket's mode says who may connect.
func peerAllowed(conn net.Conn, peers []uint32) bool {
	if c, ok := conn.(*tls.Conn); ok {
		return isKnown(c)
	}
	addr, ok := conn.RemoteAddr().(*vsock.Addr)
	if !ok {
		_, unix := conn.RemoteAddr().(*net.UnixAddr)
		return unix
	}
	for _, cid := range peers {
		if addr.ContextID == cid {
			return true
		}
	}
	return false
}
