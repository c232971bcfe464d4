package explain

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// networkProbes find the place in requests that set up the network. The rules have no checks by name for them.
var networkProbes = map[string]func(*ours) []Finding{
	"UpdateInterfaceRequest": probeInterface,
	"UpdateRoutesRequest":    probeRoutes,
	"AddARPNeighborsRequest": probeNeighbors,
}

func probeInterface(o *ours) []Finding {
	limits, got := o.policy.Requests.Interface, at(o.input, "interface")
	var out []Finding
	for _, field := range []string{"name", "device"} {
		out = append(out, unlisted("interface."+field, at(got, field), limits.ForbiddenNames)...)
	}
	out = append(out, unlisted("interface.hwAddr", at(got, "hwAddr"), limits.ForbiddenHWAddrs)...)
	return append(out, onlyBits("interface.raw_flags", at(got, "raw_flags"), limits.RawFlags)...)
}

func probeRoutes(o *ours) []Finding {
	limits := o.policy.Requests.Routes
	var out []Finding
	for i, route := range list(at(o.input, "routes", "Routes")) {
		place := fmt.Sprintf("routes.Routes[%d].", i)
		out = append(out, unlisted(place+"device", at(route, "device"), limits.ForbiddenDevices)...)
		out = append(out, unmatched(place+"source", at(route, "source"), limits.ForbiddenSources)...)
		out = append(out, unmatched(place+"dest", at(route, "dest"), limits.ForbiddenSources)...)
	}
	return out
}

func probeNeighbors(o *ours) []Finding {
	limits := o.policy.Requests.AddARPNeighbors
	states := make(oneOf, len(limits.States))
	for i, state := range limits.States {
		states[i] = fmt.Sprint(state)
	}
	var out []Finding
	for i, n := range list(at(o.input, "neighbors", "ARPNeighbors")) {
		place := fmt.Sprintf("neighbors.ARPNeighbors[%d].", i)
		out = append(out, unlisted(place+"device", at(n, "device"), limits.ForbiddenDevices)...)
		out = append(out, unmatched(place+"toIPAddress.address", at(n, "toIPAddress", "address"), limits.ForbiddenAddresses)...)
		if mask := at(n, "toIPAddress", "mask"); mask != "" {
			out = append(out, Finding{Path: place + "toIPAddress.mask", Wanted: "", Got: mask})
		}
		if state := at(n, "state"); !slices.Contains(states, fmt.Sprint(normal(state))) {
			out = append(out, Finding{Path: place + "state", Wanted: states, Got: state})
		}
		out = append(out, onlyBits(place+"flags", at(n, "flags"), limits.Flags)...)
	}
	return out
}

// unlisted finds a value that is one of those forbidden.
func unlisted(path string, got any, forbidden []string) []Finding {
	if s, ok := got.(string); ok && !slices.Contains(forbidden, s) {
		return nil
	}
	return []Finding{{Path: path, Wanted: Phrase("another than " + strings.Join(forbidden, ", ")), Got: got}}
}

// unmatched finds a value that a forbidden pattern matches.
func unmatched(path string, got any, forbidden []string) []Finding {
	s, ok := got.(string)
	if !ok {
		return []Finding{{Path: path, Wanted: Phrase("an address"), Got: got}}
	}
	for _, pattern := range forbidden {
		if matches(pattern, s) {
			return []Finding{{Path: path, Wanted: Phrase("what does not match " + pattern), Got: s}}
		}
	}
	return nil
}

// onlyBits finds bits beyond those allowed.
func onlyBits(path string, got any, allowed uint32) []Finding {
	n, _ := got.(json.Number)
	if bits, err := n.Int64(); err == nil && bits&^int64(allowed) == 0 {
		return nil
	}
	return []Finding{{Path: path, Wanted: Phrase(fmt.Sprintf("no bits but those of %#x", allowed)), Got: got}}
}
