# The pod's network is the host's, but never the loopback device of the guest.
package agent_policy

import rego.v1

UpdateInterfaceRequest if {
	limits := policy.requests.interface
	is_string(input.interface.name)

	# wanted: no bits but those of {hex(limits.raw_flags)}
	bits.and(input.interface.raw_flags, limits.raw_flags) == input.interface.raw_flags
	not input.interface.name in limits.forbidden_names
	not input.interface.device in limits.forbidden_names
	not input.interface.hwAddr in limits.forbidden_hw_addrs

	# wanted: six pairs of hexadecimal digits, not zero
	hardware_address_ok(input.interface.hwAddr)
}

UpdateRoutesRequest if {
	limits := policy.requests.routes
	every route in input.routes.Routes {
		is_string(route.device)
		not route.device in limits.forbidden_devices
		avoids(limits.forbidden_sources, route.source)
		avoids(limits.forbidden_sources, route.dest)

		# wanted: an address as it is usually written, not of the loopback
		address_ok(route.source)

		# wanted: an address as it is usually written, not of the loopback
		address_ok(route.dest)
	}
}

AddARPNeighborsRequest if {
	limits := policy.requests.arp
	every n in input.neighbors.ARPNeighbors {
		is_string(n.device)
		not n.device in limits.forbidden_devices
		avoids(limits.forbidden_addresses, n.toIPAddress.address)

		# wanted: an address as it is usually written, not of the loopback
		address_ok(n.toIPAddress.address)
		n.toIPAddress.mask == ""
		n.state in limits.states

		# wanted: no bits but those of {hex(limits.flags)}
		bits.and(n.flags, limits.flags) == n.flags
	}
}

# A string that matches none of the patterns.
avoids(patterns, value) if {
	is_string(value)
	every pattern in patterns {
		not regex.match(pattern, value)
	}
}

hardware_address_ok(address) if {
	regex.match(`^(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$`, address)
	regex.match(`[1-9A-Fa-f]`, address)
}

# Each address has one spelling, so that it can be compared as text.
address_ok(address) if address == ""

address_ok(address) if {
	regex.match(`^(?:(?:[1-9]?[0-9]|1[0-9]{2}|2[0-9]{2})\.){3}(?:[1-9]?[0-9]|1[0-9]{2}|2[0-9]{2})(?:/[0-9]{1,2})?$`, address)
	not startswith(address, "127.")
}

# In IPv6 the loopback is all zeros but for a last 1, or an address of IPv4 in it.
address_ok(address) if {
	regex.match(`^[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?:/[0-9]{1,3})?$`, address)
	not regex.match(`^[0:]*0*1(?:/|$)`, address)
	not regex.match(`^[0:]*:(?:ffff:)?0*7f[0-9a-f]{2}:`, address)
}
