// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"errors"

	"github.com/open-policy-agent/opa/v1/ast"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto"
	"portcullis/agentproto/agentpb"
	"portcullis/engine"
)

// send encodes the request as it was judged by v, sends it over a connection and returns the agent's answer. What the request came in
// is given back as soon as it is on its way. v is nil for what no policy decides.
func (c *call) send(ctx context.Context, v *engine.Verdict, over *agentConn) (*reply, error) {
	buf := c.gate.buffers.get(1 << minBufferBits)
	defer c.gate.buffers.put(buf)
	j, err := c.encode(v, buf[:0])
	if err != nil {
		return nil, err
	}
	c.request = nil
	c.ticket.decoded.release()
	r, err := over.call(ctx, j, c.giveBack)
	c.doubtful = err != nil && !isAnswer(err) && !errors.Is(err, ErrAgentAbsent)
	c.recordAnswer(err)
	return r, err
}

// forward sends a request allowed by v to the agent over the client's own agent connection and returns the agent's answer.
func (c *call) forward(ctx context.Context, v *engine.Verdict) (*reply, error) {
	r, err := c.send(ctx, v, &c.session.agent)
	if err != nil {
		return nil, answer(ctx, err)
	}
	return r, nil
}

// redacted reads a container's output and withholds it: a container whose output nobody takes would block on a full pipe.
func (c *call) redacted(ctx context.Context) (proto.Message, error) {
	r, err := c.send(ctx, nil, &c.session.agent)
	if err != nil {
		return nil, answer(ctx, err)
	}
	r.release()
	return &agentpb.ReadStreamResponse{}, nil
}

// forwardHeld sends a request that changes the policy's state. Once sent it runs to its end whatever the client does, so
// that the state follows what the agent did: success commits the change, a refusal discards it, no answer leaves both
// possible.
func (c *call) forwardHeld(ctx context.Context, v *engine.Verdict) (*reply, error) {
	defer v.Discard() // without effect once the outcome is known
	if err := v.Begin(); err != nil {
		c.gate.log.Error("journal cannot be written", "request", c.method.EntryPoint(), "error", err)
		return nil, denial(c.method, "the restart journal cannot be written")
	}
	r, err := c.send(context.WithoutCancel(ctx), v, &c.gate.stateful)
	switch {
	case err == nil:
		if err := v.Commit(); err != nil {
			r.release()
			return nil, err
		}
		return r, nil
	case errors.Is(err, ErrAgentAbsent), isAnswer(err):
		v.Discard()
	default:
		v.Doubt()
	}
	return nil, answer(ctx, err)
}

// takeID makes the id of a container to be created count as used: an id names one container in a boot, also when its creation fails
// half-way, so that what was judged for one container never reaches another. It is not taken when there is no agent to create it.
func (c *call) takeID(ctx context.Context) error {
	create, ok := c.request.(*agentpb.CreateContainerRequest)
	if !ok || create.GetContainerId() == "" { // which names none, and no agent creates
		return nil
	}
	if _, err := c.gate.stateful.connect(ctx); err != nil {
		return answer(ctx, err)
	}
	if err := c.gate.policies.TakeID(create.GetContainerId()); err != nil {
		return c.refused(err.Error())
	}
	return nil
}

// isFile reports whether the request writes a file into the guest.
func (c *call) isFile() bool {
	_, ok := c.request.(*agentpb.CopyFileRequest)
	return ok
}

// forwardFile sends a CopyFile that has its turn, and waits for the answer whatever the client does.
func (c *call) forwardFile(ctx context.Context, v *engine.Verdict) (*reply, error) {
	r, err := c.send(context.WithoutCancel(ctx), v, &c.gate.stateful)
	return r, answer(ctx, err)
}

// inTurn gives a CopyFile that v allows its turn: one is with the agent at a time, until the agent has answered. The agent assembles a
// file under its name without the extension, which files of different names can share: of two at once it makes a file that was
// never judged. One that had to wait is inspected and judged again, as meanwhile anything may have changed: its directory may have
// become a link.
func (c *call) inTurn(ctx context.Context, v *engine.Verdict) (*engine.Verdict, error) {
	if c.gate.copying.tryTake() {
		c.copies = true
		return v, nil
	}
	v.Discard() // who has the turn may wait for the state
	if err := c.gate.copying.take(ctx); err != nil {
		return nil, err
	}
	c.copies = true
	if err := c.gate.protected.check(c.request); err != nil {
		return nil, err
	}
	return c.judge(ctx)
}

// lookAgain inspects a request again that may have waited for the state, and ends it where that says no: links may have been made in
// its paths meanwhile.
func (c *call) lookAgain(v *engine.Verdict) error {
	if !v.Holds() {
		return nil
	}
	err := c.gate.protected.check(c.request)
	if err != nil {
		v.Discard()
		err = c.refused(err.Error())
	}
	return err
}

// endTurn lets the next CopyFile go to the agent.
func (c *call) endTurn() {
	if c.copies {
		c.copies = false
		c.gate.copying.end()
	}
}

// turn is taken by one at a time.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// tryTake takes the turn if nobody has it.
func (t turn) tryTake() bool {
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}

// take waits for the turn, or for ctx's end.
func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turn) end() { <-t }

// observed reports whether policies may want to see the answer to this request.
func (c *call) observed() bool { return c.method.Name == "WaitProcess" }

// observe shows the policy the agent's answer. What the policy makes of it is state, so it is settled before the client,
// which acts on the same answer, gets it. A failure leaves the state behind, never ahead: the answer passes all the same.
func (c *call) observe(ctx context.Context, of *engine.Verdict, answer []byte) {
	resp := c.method.Response.New().Interface()
	if err := proto.Unmarshal(answer, resp); err != nil {
		c.unobserved("it cannot be decoded")
		return
	}
	shown, err := c.observation(resp)
	if err != nil {
		c.unobserved(err.Error())
		return
	}
	kind := string(c.method.Response.Descriptor().Name())
	c.recordObservation(kind, shown)
	attend()
	v, err := c.gate.policies.Observe(ctx, engine.Request{
		EntryPoint: kind,
		Generation: of.Generation,
		Input:      func(*engine.Policy) (ast.Value, error) { return shown, nil },
	})
	if err != nil {
		c.unobserved(err.Error())
		return
	}
	defer v.Discard()
	if v.Reason != "" {
		c.unobserved(v.Reason)
	}
	if err := v.Commit(); err != nil {
		c.unobserved(err.Error())
	}
}

// recordObservation writes to the decision log what the policy is shown.
func (c *call) recordObservation(kind string, shown ast.Value) {
	if c.gate.trace == nil {
		return
	}
	text, err := plainJSON(shown)
	if err != nil {
		c.gate.log.Warn("answer is not in the decision log", "request", c.method.EntryPoint(), "error", err)
		return
	}
	c.gate.trace.Observe(kind, text)
}

// unobserved says that the policy's state does not follow an answer.
func (c *call) unobserved(reason string) {
	if c.gate.logLimit.Allow() {
		c.gate.log.Error("policy could not take note of an answer", "request", c.method.EntryPoint(), "error", reason)
	}
}

// observation is what the policy sees of an answer: {"request": ..., "response": ...}.
func (c *call) observation(resp proto.Message) (ast.Value, error) {
	request, err := agentproto.Input(c.request)
	if err != nil {
		return nil, err
	}
	response, err := agentproto.Input(resp)
	if err != nil {
		return nil, err
	}
	return ast.NewObject(ast.Item(ast.StringTerm("request"), ast.NewTerm(request)),
		ast.Item(ast.StringTerm("response"), ast.NewTerm(response))), nil
}
