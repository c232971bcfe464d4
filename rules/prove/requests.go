// SPDX-License-Identifier: Apache-2.0

package prove

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/policydata"
	"portcullis/rules/prove/language"
)

// compareSandbox: what CreateSandbox may say. Its host name is compared with the pod's identity.
func compareSandbox(c *comparison) {
	start := attempt{}
	if c.a.Sandbox.PIDNS != c.b.Sandbox.PIDNS {
		c.differ("sandbox.pidns", "differs", start)
	}
	c.level("storages", c.a.Strict.Storages, c.b.Strict.Storages, orOptional, attempt{change: func(i map[string]any) { i["storages"] = []any{} }})
	if !same(storageTexts(c.a.Sandbox.Storages), storageTexts(c.b.Sandbox.Storages)) {
		c.differ("sandbox.storages", "differ", start)
	}
}

// compareLifecycle: requests about containers that do not exist.
func compareLifecycle(c *comparison) {
	c.level("lifecycle", c.a.Strict.Lifecycle, c.b.Strict.Lifecycle, orFree,
		requests(request("StatsContainerRequest", map[string]any{"container_id": fmt.Sprintf("%064x", 10)})))
}

// compareAllow: requests that are allowed whatever they hold.
func compareAllow(c *comparison) {
	for _, name := range lacking(c.a.Requests.Allow, c.b.Requests.Allow) {
		if slices.ContainsFunc(rules.Entries(), func(e rules.Entry) bool { return e.Request == name && e.Default == rules.Allowed }) {
			continue // under any policy
		}
		c.differ("requests.allow", name+" is allowed by one only", requests(request(name, map[string]any{})))
	}
	for _, r := range []struct {
		field, kind string
		a, b        bool
		input       map[string]any
	}{
		{"get_diagnostic_data", "GetDiagnosticDataRequest", c.a.Requests.GetDiagnosticData, c.b.Requests.GetDiagnosticData, nil},
		{"update_ephemeral_mounts", "UpdateEphemeralMountsRequest", c.a.Requests.UpdateEphemeralMounts, c.b.Requests.UpdateEphemeralMounts, map[string]any{"storages": []any{}}},
	} {
		if r.b && !r.a {
			c.differ("requests."+r.field, "is allowed by one only", append(c.after(func(id string) []rulestest.Request {
				return []rulestest.Request{request(r.kind, map[string]any{"container_id": id, "storages": []any{}})}
			}), requests(request(r.kind, r.input)))...)
		}
	}
}

// compareStreams: stdin of the container's own process, and of others.
func compareStreams(c *comparison) {
	write := func(kind, exec string) func(id string) []rulestest.Request {
		return func(id string) []rulestest.Request {
			return []rulestest.Request{request(kind, map[string]any{"container_id": id, "exec_id": exec, "data": ""})}
		}
	}
	a, b := c.a.Requests, c.b.Requests
	open := func(path, exec string, openA, openB bool, attempts func(then func(id string) []rulestest.Request) []attempt) {
		if (b.WriteStream || openB) && !a.WriteStream && !openA {
			c.differ(path, "stdin is open in one only", attempts(write("WriteStreamRequest", exec))...)
		}
		if (b.CloseStdin || b.WriteStream || openB) && !a.CloseStdin && !a.WriteStream && !openA {
			c.differ("requests.close_stdin", "stdin may be closed in one only", attempts(write("CloseStdinRequest", exec))...)
		}
	}
	c.each(func(k container) {
		open(k.at("stdin"), "", k.a.Stdin, k.b.Stdin, func(then func(id string) []rulestest.Request) []attempt {
			return []attempt{{container: k.name, then: then}}
		})
	})
	if c.b.Strict.Lifecycle == policydata.Free { // of a container that does not exist
		open("requests.write_stream", "", false, false, func(then func(id string) []rulestest.Request) []attempt {
			return []attempt{{then: func(string) []rulestest.Request { return then(fmt.Sprintf("%064x", 10)) }}}
		})
	}
	open("requests.exec.stdin", "other", a.Exec.Stdin, b.Exec.Stdin, func(then func(id string) []rulestest.Request) []attempt {
		return append(c.after(then), attempt{then: func(string) []rulestest.Request { return then(fmt.Sprintf("%064x", 10)) }})
	})
}

// compareSignals: the signal that ends a container, beside those that all may be sent.
func compareSignals(c *comparison) {
	c.each(func(k container) {
		if signal := k.b.StopSignal; signal != k.a.StopSignal && !c.anySignal(signal) {
			k.differ(k.at("stop_signal"), fmt.Sprintf("signal %d may be sent in one only", signal), attempt{container: k.name, then: func(id string) []rulestest.Request {
				return []rulestest.Request{request("SignalProcessRequest", map[string]any{"container_id": id, "exec_id": "", "signal": signal})}
			}})
		}
	})
}

// anySignal says whether a lets a signal be sent to any container: the two that end one, and where a is lenient those that stop none.
func (c *comparison) anySignal(signal uint32) bool {
	stops := signal >= 18 && signal <= 22
	return signal == 9 || signal == 15 || c.a.Strict.Lifecycle == policydata.Free && !stops
}

// compareCommands: what may be executed.
func compareCommands(c *comparison) {
	a := c.a.Requests.Exec
	c.each(func(k container) {
		for _, argv := range k.b.Exec {
			if !has(k.a.Exec, argv) && !c.listed(a, argv) {
				k.differ(k.at("exec"), fmt.Sprintf("%q is allowed by one only", argv), k.exec(argv, func(map[string]any) {}))
			}
		}
		for _, argv := range c.b.Requests.Exec.Commands {
			if !c.listed(a, argv) && !has(k.a.Exec, argv) {
				k.differ("requests.exec.commands", fmt.Sprintf("%q is allowed by one only", argv), k.exec(argv, func(map[string]any) {}))
			}
		}
	})
	c.within("requests.exec.joined", c.patterns(a.Joined), c.patterns(c.b.Requests.Exec.Joined), func(example string) []attempt {
		var out []attempt
		c.each(func(k container) { out = append(out, k.exec([]string{example}, func(map[string]any) {})) })
		return out
	})
}

func has(commands [][]string, argv []string) bool {
	return slices.ContainsFunc(commands, func(other []string) bool { return slices.Equal(other, argv) })
}

func (c *comparison) listed(e policydata.Exec, argv []string) bool {
	return has(e.Commands, argv) || c.patterns(e.Joined).Has(strings.Join(argv, " "))
}

// compareTerminal: commands that are listed for all containers may have a terminal.
func compareTerminal(c *comparison) {
	a, b := c.a.Requests.Exec, c.b.Requests.Exec
	if !b.Terminal {
		return
	}
	terminal := func(i map[string]any) { object(i, "process")["Terminal"] = true }
	c.each(func(k container) {
		for _, argv := range slices.Concat(b.Commands, k.b.Exec) {
			if c.listed(b, argv) && !(a.Terminal && c.listed(a, argv)) {
				k.differ("requests.exec.terminal", fmt.Sprintf("%q may have a terminal in one only", argv), k.exec(argv, terminal))
			}
		}
		for _, pattern := range b.Joined {
			if !a.Terminal {
				k.differ("requests.exec.terminal", "commands may have a terminal in one only", k.exec([]string{rulestest.Example(pattern)}, terminal))
			}
		}
	})
}

// compareExecStdio: ports for the streams of other processes.
func compareExecStdio(c *comparison) {
	if !c.b.Requests.Exec.Stdin || c.a.Requests.Exec.Stdin {
		return
	}
	c.each(func(k container) {
		if argv := k.command(); argv != nil {
			k.differ("requests.exec.stdin", "is open in one only", k.exec(argv, func(i map[string]any) { i["stdin_port"] = 1025 }))
		}
	})
}

// What the rules take for a hardware address.
var hardwareAddress, notZero = regexp.MustCompile(`^(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$`), regexp.MustCompile(`[1-9A-Fa-f]`)

// compareInterface, compareRoutes and compareARP: what the network may be made of.
func compareInterface(c *comparison) {
	a, b := c.a.Requests.Interface, c.b.Requests.Interface
	try := func(change map[string]any) attempt {
		i := map[string]any{"name": "eth7", "device": "eth7", "hwAddr": "02:00:00:00:00:07", "raw_flags": 0, "mtu": 1500, "type_": "", "IPAddresses": []any{}, "devicePath": ""}
		maps.Copy(i, change)
		return requests(request("UpdateInterfaceRequest", map[string]any{"interface": i}))
	}
	if more := b.RawFlags &^ a.RawFlags; more != 0 {
		c.differ("requests.interface.raw_flags", fmt.Sprintf("%#x is allowed by one only", more), try(map[string]any{"raw_flags": more}))
	}
	for _, name := range lacking(b.ForbiddenNames, a.ForbiddenNames) {
		c.differ("requests.interface.forbidden_names", name+" is forbidden by one only", try(map[string]any{"name": name}), try(map[string]any{"device": name}))
	}
	for _, address := range lacking(b.ForbiddenHWAddrs, a.ForbiddenHWAddrs) {
		if !hardwareAddress.MatchString(address) || !notZero.MatchString(address) {
			continue // the rules take it for no address, whatever a policy says
		}
		c.differ("requests.interface.forbidden_hw_addrs", address+" is forbidden by one only", try(map[string]any{"hwAddr": address}))
	}
}

func compareRoutes(c *comparison) {
	a, b := c.a.Requests.Routes, c.b.Requests.Routes
	try := func(key, value string) attempt {
		route := map[string]any{"device": "eth7", "source": "", "dest": "", "gateway": "", "scope": 0, "family": 0, "flags": 0, "mtu": 0}
		route[key] = value
		return requests(request("UpdateRoutesRequest", map[string]any{"routes": map[string]any{"Routes": []any{route}}}))
	}
	for _, device := range lacking(b.ForbiddenDevices, a.ForbiddenDevices) {
		c.differ("requests.routes.forbidden_devices", device+" is forbidden by one only", try("device", device))
	}
	c.forbidden("requests.routes.forbidden_sources", a.ForbiddenSources, b.ForbiddenSources, func(address string) []attempt {
		return []attempt{try("source", address), try("dest", address)}
	})
}

func compareARP(c *comparison) {
	a, b := c.a.Requests.AddARPNeighbors, c.b.Requests.AddARPNeighbors
	try := func(change map[string]any) attempt {
		n := map[string]any{"device": "eth7", "toIPAddress": map[string]any{"address": "10.0.0.7", "mask": "", "family": 0}, "lladdr": "", "state": 0, "flags": 0}
		if len(b.States) > 0 {
			n["state"] = b.States[0]
		}
		maps.Copy(n, change)
		return requests(request("AddARPNeighborsRequest", map[string]any{"neighbors": map[string]any{"ARPNeighbors": []any{n}}}))
	}
	if more := b.Flags &^ a.Flags; more != 0 {
		c.differ("requests.arp.flags", fmt.Sprintf("%#x is allowed by one only", more), try(map[string]any{"flags": more}))
	}
	for _, state := range lacking(a.States, b.States) {
		c.differ("requests.arp.states", fmt.Sprintf("%d is allowed by one only", state), try(map[string]any{"state": state}))
	}
	for _, device := range lacking(b.ForbiddenDevices, a.ForbiddenDevices) {
		c.differ("requests.arp.forbidden_devices", device+" is forbidden by one only", try(map[string]any{"device": device}))
	}
	c.forbidden("requests.arp.forbidden_addresses", a.ForbiddenAddresses, b.ForbiddenAddresses, func(address string) []attempt {
		return []attempt{try(map[string]any{"toIPAddress": map[string]any{"address": address, "mask": "", "family": 0}})}
	})
}

// forbidden compares patterns of addresses that are denied. What is no address that the rules take does not count.
func (c *comparison) forbidden(path string, a, b []string, attempts func(address string) []attempt) {
	c.within(path, language.Union(c.patterns(b), notAnAddress(c)), c.patterns(a), attempts)
}

// What the rules take for an address that is written as usual, and which of those they deny all the same.
const (
	addressV4  = `^(?:(?:[1-9]?[0-9]|1[0-9]{2}|2[0-9]{2})\.){3}(?:[1-9]?[0-9]|1[0-9]{2}|2[0-9]{2})(?:/[0-9]{1,2})?$`
	addressV6  = `^[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?:/[0-9]{1,3})?$`
	loopbackV6 = `^[0:]*0*1(?:/|$)`
	mappedV6   = `^[0:]*:(?:ffff:)?0*7f[0-9a-f]{2}:`
)

// notAnAddress has what the rules take for no address, or for one of the loopback device, whatever a policy says.
func notAnAddress(c *comparison) language.Set {
	v4 := c.pattern(addressV4).Minus(c.pattern(`^127\.`))
	v6 := c.pattern(addressV6).Minus(c.patterns([]string{loopbackV6, mappedV6}))
	return language.All().Minus(language.Union(v4, v6, language.Literals("")))
}
