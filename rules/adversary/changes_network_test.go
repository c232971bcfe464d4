// SPDX-License-Identifier: Apache-2.0

package adversary_test

import (
	"slices"
)

// networkChanges are what an attacker would try with the pod's network.
var networkChanges = []change{{"interface", changeInterface}, {"route", changeRoute}, {"neighbour", changeNeighbour}, {"sandbox", changeSandbox}}

// addresses are spellings of the loopback, and of others.
var addresses = []string{
	"127.0.0.1", "127.1.2.3/8", "::1", "0:0:0:0:0:0:0:1", "+0:0:0:0:0:0:0:1", "::0.0.0.1", "::ffff:127.0.0.1", "::ffff:7f00:1", "0:0:0:0:0:ffff:7f00:1", "127.1", "0x7f.0.0.1",
	"2130706433", "::0001", "0000::1", "::7f00:1", "10.0.0.1", "fd00::1", "0.0.0.0/0", "::/0", "fd00::/8", "127.0.0.0/8", "126.0.0.0/7", "::/127", "::/1", "0.0.0.0/1", "fe80::1%lo", "::127.0.0.1",
	"0177.0.0.1", "[::1]", "::1/128", "1.2.3", "999.1.1.1", "localhost", "10.0.0.1/33", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "0:0:0:0:0:0:127.0.0.1", "64.0.0.0/2",
}

func changeInterface(p *pod, es []event, s step) []event {
	hw := []string{"00:00:00:00:00:00", "0:0:0:0:0:0", "", "02:00:00:00:00:01", "00-00-00-00-00-00", "000000000000", "02:00:00:00:00", "00:00:00:00:00:00:00:00", "AA:bb:00:00:00:01"}
	name := []string{"eth0", "lo", "eth1", "", "LO", "lo0"}
	entry := object{
		"IPAddresses": []any{object{"address": addresses[s.At%len(addresses)], "family": 0, "mask": "24"}}, "device": name[s.From/6%6], "devicePath": "", "hwAddr": hw[s.Item%len(hw)],
		"mtu": 1500, "name": name[s.From%6], "raw_flags": []int{0, 128, 64, 8}[s.Item/9%4], "type_": "virtual",
	}
	return slices.Insert(slices.Clone(es), s.At%(len(es)+1), p.of("UpdateInterfaceRequest", object{"interface": entry}))
}

func changeRoute(p *pod, es []event, s step) []event {
	a := addresses[(s.Item+s.From*32)%len(addresses)]
	route := object{"dest": "", "device": []string{"eth0", "eth0", "eth0", "lo"}[s.From%4], "family": 0, "flags": 0, "gateway": "10.0.0.1", "mtu": 0, "scope": 0, "source": ""}
	route[[]string{"dest", "source"}[s.At%2]] = a
	return slices.Insert(slices.Clone(es), s.At%(len(es)+1), p.of("UpdateRoutesRequest", object{"routes": object{"Routes": []any{route}}}))
}

func changeNeighbour(p *pod, es []event, s step) []event {
	n := object{
		"toIPAddress": object{"address": addresses[(s.Item+s.From*32)%len(addresses)], "family": 0, "mask": ""}, "device": []string{"eth0", "eth0", "lo"}[s.From%3],
		"lladdr": "02:00:00:00:00:02", "state": 128, "flags": 0,
	}
	return slices.Insert(slices.Clone(es), s.At%(len(es)+1), p.of("AddARPNeighborsRequest", object{"neighbors": object{"ARPNeighbors": []any{n}}}))
}

func changeSandbox(p *pod, es []event, s step) []event {
	return p.edit(es, pick(es, s.At, ofKind("CreateSandboxRequest")), func(in object) {
		switch s.Item % 6 {
		case 0:
			in["guest_hook_path"] = "/x"
		case 1:
			in["kernel_modules"] = []any{object{"name": "x", "parameters": []any{}}}
		case 2:
			in["sandbox_pidns"] = in["sandbox_pidns"] != true
		case 3:
			in["hostname"] = []string{"", "x", "-x", "localhost"}[s.From%4]
		case 4:
			in["storages"] = []any{}
		case 5:
			in["sandbox_id"] = []string{"", "x", "..", idAt(es, s.From)}[s.From%4]
		}
	})
}
