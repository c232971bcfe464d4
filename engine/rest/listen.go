package rest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/netutil"
)

// maxConnections are served at a time; further ones wait. Peers that are not let in do not count.
const maxConnections = 64

// ErrNotLoopback is the refusal of an address that others than this guest could reach.
var ErrNotLoopback = errors.New("not a loopback address")

// ParseAddress reads HOST:PORT, where HOST is localhost or a loopback address in numbers.
func ParseAddress(s string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("REST address %q: want HOST:PORT: %w", s, err)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	a, err := netip.ParseAddrPort(net.JoinHostPort(host, port))
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("REST address %q: want a loopback address and a port in numbers", s)
	}
	if !a.Addr().IsLoopback() || a.Addr().Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("REST address %q: %w", s, ErrNotLoopback)
	}
	return a, nil
}

// Listen listens on a loopback address and lets in only processes of this user or root that are in no container's cgroup.
func Listen(ctx context.Context, address string, log *slog.Logger) (net.Listener, error) {
	a, err := ParseAddress(address)
	if err != nil {
		return nil, err
	}
	own, err := cgroupsOf("self")
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", a.String())
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return netutil.LimitListener(&listener{Listener: l, own: own, log: log}, maxConnections), nil
}

// listener hangs up on peers that are not to be served.
type listener struct {
	net.Listener
	own    cgroups
	log    *slog.Logger
	logged time.Time // of the last refusal in the log
	silent int       // refusals since
}

// refusalsLogged is how far apart refusals are logged, which a container could otherwise do without end.
const refusalsLogged = 10 * time.Second

// Accept returns the next connection from a peer that may connect. It is not safe for concurrent use.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		err = checkPeer(conn, l.own)
		if err == nil {
			return conn, nil
		}
		conn.Close()
		l.refused(conn.RemoteAddr(), err)
	}
}

func (l *listener) refused(peer net.Addr, err error) {
	if time.Since(l.logged) < refusalsLogged {
		l.silent++
		return
	}
	l.log.Warn("connection refused", "peer", peer.String(), "error", err, "not_logged", l.silent)
	l.logged, l.silent = time.Now(), 0
}
