// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
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
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", a.String())
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return Guard(l, log)
}
