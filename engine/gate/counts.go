// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"sync/atomic"
	"time"

	"portcullis/agentproto"
	"portcullis/engine/binding"
)

// counts are the decisions so far, by request. The host cannot make it grow: it has the requests of the agent's API.
type counts map[string]*count

type count struct {
	allowed, denied atomic.Uint64
	nanoseconds     atomic.Uint64 // of all decisions
	within          [len(binding.Latencies)]atomic.Uint64
}

func newCounts() counts {
	c := counts{}
	for _, m := range agentproto.Methods() {
		c[m.EntryPoint()] = &count{}
	}
	return c
}

// add counts a decision and the time that it took.
func (c counts) add(request string, allowed bool, took time.Duration) {
	of := c[request]
	if of == nil {
		return
	}
	if allowed {
		of.allowed.Add(1)
	} else {
		of.denied.Add(1)
	}
	of.nanoseconds.Add(uint64(took))
	for i, most := range binding.Latencies {
		if took <= most {
			of.within[i].Add(1)
			return
		}
	}
}

// Counts are the decisions so far, of the requests that there were, in the order of the agent's methods.
func (g *Gate) Counts() []binding.RequestCount {
	var all []binding.RequestCount
	seen := map[string]bool{}
	for _, m := range agentproto.Methods() {
		name := m.EntryPoint()
		of := g.counts[name]
		out := binding.RequestCount{Request: name, Allowed: of.allowed.Load(), Denied: of.denied.Load()}
		if seen[name] || out.Allowed+out.Denied == 0 {
			continue
		}
		seen[name] = true
		out.Seconds = time.Duration(of.nanoseconds.Load()).Seconds()
		below := uint64(0)
		for i := range of.within {
			below += of.within[i].Load()
			out.Within = append(out.Within, below)
		}
		all = append(all, out)
	}
	return all
}
