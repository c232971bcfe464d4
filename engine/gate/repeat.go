// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"time"

	"portcullis/engine"
	"portcullis/internal/recent"
)

// Runtimes read a container's output and ask for its figures in the same words over and over. What decoding, inspecting and encoding
// make of the same bytes is the same each time; it takes a process that has just been woken up, and finds little of itself in the
// caches, longer than all else that it does with a request. So the gate knows such requests again: those whose encoding, once they
// had been judged, was what had come, byte by byte. Whether they are allowed is asked of the policies each time.

// repeats are the requests that are known again.
type repeats = *recent.Map[repeatKey, struct{}]

// repeatKey names a request by its entry point and its encoding.
type repeatKey struct {
	entryPoint string
	sum        [sha256.Size]byte
}

// maxRepeats is room for the containers of a large pod, each with its output and some processes' that run in it.
const maxRepeats = 1024

func newRepeats() repeats { return recent.New[repeatKey, struct{}](maxRepeats) }

// comesAgain lists the methods whose requests are known again. Of what they say only ids are inspected, which needs no look at the
// guest as paths do; the gate keeps nothing of them, and neither does the decision log.
var comesAgain = map[string]bool{"ReadStdout": true, "ReadStderr": true, "StatsContainer": true}

func (c *call) repeatKey() repeatKey { return repeatKey{c.method.EntryPoint(), c.key} }

// knowAgain keeps a request that was allowed and encoded, if it may come again.
func (c *call) knowAgain(j judged) {
	if comesAgain[c.method.Name] && len(c.payload) <= maxAtOnce && j.tail == nil && bytes.Equal(j.head, c.payload) {
		c.gate.repeats.Put(c.repeatKey(), struct{}{})
	}
}

// repeats reports whether the request is one that is known again and allowed still, and can be sent at once.
func (c *call) repeats() bool {
	began := time.Now()
	if !comesAgain[c.method.Name] || len(c.payload) > maxAtOnce || !c.agent.takesMore() {
		return false
	}
	if _, known := c.gate.repeats.Get(c.repeatKey()); !known {
		return false
	}
	v := c.recall()
	if v == nil || !v.Allowed || v.Waived { // a waiver is logged each time
		return false
	}
	c.recalled = v
	c.count(c.ctx, true, time.Since(began))
	return true
}

// repeat sends a request as it came.
func (c *call) repeat(ctx context.Context, over func()) error {
	v := c.recalled
	p := &plainCall{call: c, ctx: ctx, over: over}
	return p.start(judged{method: c.method, head: c.payload, stands: func() bool { return c.gate.policies.Stands(v) }})
}

// recall returns the decision on the request that the policies remember, nil if none.
func (c *call) recall() *engine.Verdict {
	return c.gate.policies.Recall(engine.Request{EntryPoint: c.method.EntryPoint(), Key: c.key})
}
