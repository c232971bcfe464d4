package agent_policy_test

import data.agent_policy
import rego.v1

limits := {"version": 1, "requests": {
	"interface": {"raw_flags": 128, "forbidden_names": ["lo"], "forbidden_hw_addrs": ["00:00:00:00:00:00"]},
	"routes": {"forbidden_devices": ["lo"], "forbidden_sources": [`^127\..*$`]},
	"arp": {"flags": 136, "forbidden_addresses": [`^127\..*$`], "forbidden_devices": ["lo"], "states": [2, 128]},
}}

interface(fields) := {"interface": object.union({"name": "eth0", "device": "eth0", "hwAddr": "66:74:9f:6a:96:01", "raw_flags": 0}, fields)}

test_interface if {
	agent_policy.UpdateInterfaceRequest with data.agent_policy.policy_data as limits with input as interface({})
	agent_policy.UpdateInterfaceRequest with data.agent_policy.policy_data as limits with input as interface({"raw_flags": 128})
}

test_interface_refused if {
	every fields in [{"name": "lo"}, {"device": "lo"}, {"hwAddr": "00:00:00:00:00:00"}, {"hwAddr": "0:0:0:0:0:0"}, {"hwAddr": ""}, {"raw_flags": 64}, {"raw_flags": 192}] {
		not agent_policy.UpdateInterfaceRequest with data.agent_policy.policy_data as limits with input as interface(fields)
	}
	not agent_policy.UpdateInterfaceRequest with data.agent_policy.policy_data as limits with input as {"interface": null}
}

routes(list) := {"routes": {"Routes": [object.union({"dest": "", "device": "eth0", "source": ""}, route) | some route in list]}}

test_routes if {
	agent_policy.UpdateRoutesRequest with data.agent_policy.policy_data as limits with input as routes([])
	agent_policy.UpdateRoutesRequest with data.agent_policy.policy_data as limits with input as routes([{}, {"source": "10.0.0.1"}, {"dest": "0.0.0.0/0"}, {"dest": "fd00::1"}, {"dest": "10.96.0.0/12"}, {"dest": "::/0"}, {"source": "fe80::1:1"}])
}

test_routes_refused if {
	every route in [{"device": "lo"}, {"source": "127.0.0.1"}, {"source": "::1"}, {"dest": "0:0::1/128"}, {"dest": "::0.0.0.1"}, {"dest": "::ffff:7f00:1"}, {"source": "+127.0.0.1"}, {"source": "0127.0.0.1"}, {"dest": "0x7f.1"}, {"dest": "127.0.0.0/8"}] {
		not agent_policy.UpdateRoutesRequest with data.agent_policy.policy_data as limits with input as routes([{}, route])
	}
	not agent_policy.UpdateRoutesRequest with data.agent_policy.policy_data as limits with input as {"routes": null}
	not agent_policy.UpdateRoutesRequest with data.agent_policy.policy_data as limits with input as {"routes": {"Routes": [{}]}}
}

neighbor(fields) := {"neighbors": {"ARPNeighbors": [object.union({"toIPAddress": {"address": "10.0.0.1", "mask": ""}, "device": "eth0", "state": 128, "flags": 0}, fields)]}}

test_neighbors if {
	agent_policy.AddARPNeighborsRequest with data.agent_policy.policy_data as limits with input as neighbor({})
	agent_policy.AddARPNeighborsRequest with data.agent_policy.policy_data as limits with input as neighbor({"flags": 136, "state": 2})
}

test_neighbors_refused if {
	every fields in [{"device": "lo"}, {"state": 0}, {"flags": 1}, {"toIPAddress": {"address": "127.0.0.1", "mask": ""}}, {"toIPAddress": {"address": "10.0.0.1", "mask": "8"}}] {
		not agent_policy.AddARPNeighborsRequest with data.agent_policy.policy_data as limits with input as neighbor(fields)
	}
	not agent_policy.AddARPNeighborsRequest with data.agent_policy.policy_data as limits with input as {"neighbors": null}
}
