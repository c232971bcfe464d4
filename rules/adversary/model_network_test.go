// SPDX-License-Identifier: Apache-2.0

package adversary_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// breaksNetwork: the network is the host's, but for the guest's loopback, by name, by
// hardware address and by every spelling of its addresses.
func breaksNetwork(kind string, input object) string {
	switch kind {
	case "UpdateInterfaceRequest":
		i := at(input, "interface")
		if hw, err := net.ParseMAC(str(at(i, "hwAddr"))); err != nil || len(hw) != 6 || hw.String() == "00:00:00:00:00:00" {
			return "hardware address " + str(at(i, "hwAddr"))
		}
		if str(at(i, "name")) == "lo" || str(at(i, "device")) == "lo" {
			return "loopback device"
		}
		if n := number(at(i, "raw_flags")); n&^128 != 0 {
			return fmt.Sprintf("flags %#x", n)
		}
	case "UpdateRoutesRequest":
		for _, route := range list(at(input, "routes", "Routes")) {
			if str(at(route, "device")) == "lo" {
				return "route by the loopback device"
			}
			for _, field := range []string{"source", "dest"} {
				if broken := loopback(str(at(route, field))); broken != "" {
					return "route: " + broken
				}
			}
		}
	case "AddARPNeighborsRequest":
		for _, n := range list(at(input, "neighbors", "ARPNeighbors")) {
			if str(at(n, "device")) == "lo" {
				return "neighbour by the loopback device"
			}
			if broken := loopback(str(at(n, "toIPAddress", "address"))); broken != "" {
				return "neighbour: " + broken
			}
		}
	}
	return ""
}

// loopback says why an address or network may not be used, "" if it may.
func loopback(text string) string {
	if text == "" {
		return ""
	}
	host, _, _ := strings.Cut(text, "/")
	a, err := netip.ParseAddr(host)
	if err != nil || a.Zone() != "" {
		return "no address: " + text
	}
	if a.Unmap().IsLoopback() || mapped(a).IsLoopback() {
		return "loopback address " + text
	}
	return ""
}

// mapped is the address of IPv4 that one of IPv6 ends in, in the old compatible form.
func mapped(a netip.Addr) netip.Addr {
	b := a.As16()
	for _, x := range b[:12] {
		if x != 0 {
			return a
		}
	}
	return netip.AddrFrom4([4]byte(b[12:]))
}
