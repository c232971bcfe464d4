// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"bufio"
	"context"
	"errors"
	"sync/atomic"

	"portcullis/engine"
)

// Most requests change nothing that the gate keeps: once allowed they are the agent's, and its answer is the client's. They wait on no
// goroutine of theirs, since handing them over between goroutines takes longer than all else that the gate does with them: the one
// that reads the agent's answers writes to the client. It may wait for that client, as nobody else's answers come over its link. A
// process that is waited for has a goroutine from its end on, as the policy is told of that first, and may be busy: until then, which
// may be as long as the pod lives, a host can have thousands of such requests.

// errUnderWay says that a request is with the agent, whose answer concludes it.
var errUnderWay = errors.New("request is under way")

// plain reports whether little but passing on the agent's answer is left to do for a request allowed by v.
func (c *call) plain(v *engine.Verdict) bool {
	return !v.Holds() && (c.passes() || c.observed())
}

// passes reports whether the request, once allowed without ops, is of no further concern.
func (c *call) passes() bool {
	if c.observed() || c.isFile() {
		return false
	}
	_, recorded := c.fact()
	return !recorded
}

// plainCall is a plain request on its way to the agent.
type plainCall struct {
	*call
	ctx     context.Context
	over    func()
	of      *engine.Verdict // whose policy is told of the answer; nil: none is
	left    atomic.Int32    // that have to happen before it is concluded: it is sent, and there is an outcome
	outcome outcome
	passed  bool // the answer has gone to the client already, or what came of it
	unwatch func() bool
}

// forwardPlain sends a request. It returns errUnderWay, or an error when nothing was sent.
func (c *call) forwardPlain(ctx context.Context, v *engine.Verdict, over func()) error {
	buf := c.gate.buffers.get(1 << minBufferBits)
	defer c.gate.buffers.put(buf)
	j, err := c.encode(v, buf[:0])
	if err != nil {
		return err
	}
	c.knowAgain(j)
	p := &plainCall{call: c, ctx: ctx, over: over}
	if c.observed() {
		p.of = v
	} else {
		c.request = nil
	}
	c.ticket.decoded.release()
	return p.start(j)
}

// start sends the request and leaves the rest to its outcome.
func (p *plainCall) start(j judged) error {
	c, ctx := p.call, p.ctx
	p.unwatch = func() bool { return true }
	p.left.Store(2)
	w := waiter{done: p.settle}
	if p.of == nil {
		w.stream = p.stream
	}
	link, id, err := c.session.agent.send(ctx, j, w)
	c.giveBack()
	if err != nil {
		c.recordAnswer(err)
		return answer(ctx, err)
	}
	if ctx != c.ctx { // the end of c.ctx is the link's end
		p.unwatch = context.AfterFunc(ctx, func() {
			if w, ours := link.take(id); ours {
				w.done(outcome{err: ctx.Err()})
			}
		})
	}
	p.step()
	return errUnderWay
}

// settle takes the outcome.
func (p *plainCall) settle(o outcome) {
	p.outcome = o
	p.step()
}

// step concludes the call when it was the last one.
func (p *plainCall) step() {
	switch {
	case p.left.Add(-1) > 0:
	case p.of != nil && p.outcome.err == nil:
		go p.conclude()
	default:
		p.conclude()
	}
}

func (p *plainCall) conclude() {
	defer p.over()
	defer func() {
		if reason := recover(); reason != nil {
			p.logPanic(reason)
			p.close()
		}
	}()
	p.unwatch()
	p.recordAnswer(p.outcome.err)
	switch {
	case p.passed:
		if p.outcome.err != nil { // half an answer is out
			p.close()
		}
	case p.outcome.err != nil:
		p.end(nil, answer(p.ctx, p.outcome.err))
	default:
		if p.of != nil {
			p.observe(context.WithoutCancel(p.ctx), p.of, p.outcome.reply.payload)
			p.recordEnd(p.ctx, p.outcome.reply.payload)
		}
		p.pass(p.outcome.reply)
	}
}

// stream gives the client an answer as it comes.
func (p *plainCall) stream(in *bufio.Reader, length int) error {
	p.passed = true
	return p.session.writeFrom(in, p.id, length)
}

// maxAtOnce is the largest frame, in bytes, that is served on the goroutine that reads the connection.
const maxAtOnce = 1 << 10

// atOnce reports whether serving the request keeps the connection's next one waiting no longer than handing it over would: it is
// decided already, and neither agent nor policy are waited for. Output that is withheld is: it comes when a container writes some.
func (c *call) atOnce() bool {
	if len(c.message) > maxAtOnce || !c.passes() || !c.agent.takesMore() {
		return false
	}
	v := c.recall()
	return v != nil && (v.Allowed || !c.readsOutput())
}
