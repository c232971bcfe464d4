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
}

UpdateRoutesRequest if {
	limits := policy.requests.routes
	every route in input.routes.Routes {
		is_string(route.device)
		not route.device in limits.forbidden_devices
		avoids(limits.forbidden_sources, route.source)
		avoids(limits.forbidden_sources, route.dest)
	}
}

AddARPNeighborsRequest if {
	limits := policy.requests.arp
	every n in input.neighbors.ARPNeighbors {
		is_string(n.device)
		not n.device in limits.forbidden_devices
		avoids(limits.forbidden_addresses, n.toIPAddress.address)
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
