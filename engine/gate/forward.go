package gate

import (
	"context"
	"errors"

	"github.com/open-policy-agent/opa/v1/ast"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto"
	"portcullis/agentproto/agentpb"
	"portcullis/engine"
	"portcullis/engine/journal"
)

// forward sends a request allowed by v to the agent over the client's own agent connection and returns the agent's answer.
func (c *call) forward(ctx context.Context, v *engine.Verdict) (proto.Message, error) {
	resp := proto.Message(&opaque{})
	if c.observed() {
		resp = c.method.Response.New().Interface()
	}
	if err := c.session.agent.call(ctx, c.method, c.request, resp); err != nil {
		return nil, answer(ctx, err)
	}
	if c.observed() {
		c.observe(context.WithoutCancel(ctx), v, resp)
	}
	return resp, nil
}

// redacted reads a container's output and withholds it: a container whose output nobody takes would block on a full pipe.
func (c *call) redacted(ctx context.Context) (proto.Message, error) {
	var resp agentpb.ReadStreamResponse
	if err := c.session.agent.call(ctx, c.method, c.request, &resp); err != nil {
		return nil, answer(ctx, err)
	}
	resp.Data = nil
	return &resp, nil
}

// forwardHeld sends a request that changes the policy's state. Once sent it runs to its end whatever the client does, so
// that the state follows what the agent did: success commits the change, a refusal discards it, no answer leaves both
// possible. The journal is ahead of memory at each step, and says "both" while the agent is at work.
func (c *call) forwardHeld(ctx context.Context, v *engine.Verdict) (proto.Message, error) {
	defer v.Discard() // without effect once the outcome is known
	if c.isFile() {
		if err := c.gate.copying.take(ctx); err != nil {
			return nil, answer(ctx, err)
		}
		defer c.gate.copying.end()
	}
	before, id := c.gate.policies.State(), c.createdContainer()
	if err := c.journal(v.InDoubt(), id, ""); err != nil {
		return nil, denial(c.method, "the restart journal cannot be written")
	}
	resp := &opaque{}
	err := c.gate.stateful.call(context.WithoutCancel(ctx), c.method, c.request, resp)
	switch {
	case err == nil:
		_ = c.journal(v.Next(), "", "") // a record that stays behind says "both", which is safe
		return resp, v.Commit()
	case errors.Is(err, ErrAgentAbsent):
		_ = c.journal(before, "", "")
	case isAnswer(err):
		_ = c.journal(before, "", id) // the agent may have kept a part of the container
	default:
		_ = c.journal(v.InDoubt(), "", id)
		v.Doubt()
	}
	return nil, answer(ctx, err)
}

// isFile reports whether the request writes a file into the guest.
func (c *call) isFile() bool {
	_, ok := c.request.(*agentpb.CopyFileRequest)
	return ok
}

// forwardFile sends a CopyFile when no other is with the agent, and waits for the answer whatever the client does. The agent
// assembles a file under its name without the extension, which files of different names can share: of two at once it makes a
// file that was never judged.
func (c *call) forwardFile(ctx context.Context) (proto.Message, error) {
	if err := c.gate.copying.take(ctx); err != nil {
		return nil, answer(ctx, err)
	}
	defer c.gate.copying.end()
	resp := &opaque{}
	if err := c.gate.stateful.call(context.WithoutCancel(ctx), c.method, c.request, resp); err != nil {
		return nil, answer(ctx, err)
	}
	return resp, nil
}

// turn is taken by one at a time.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

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

// journal records the policy's state, the container that is being created, and the container id that is burnt.
func (c *call) journal(state engine.State, pending, burnt string) error {
	err := c.gate.journal.Update(func(r *journal.Record) error {
		r.State, r.Pending = state, pending
		if burnt == "" {
			return nil
		}
		return r.Burn(burnt)
	})
	if err != nil {
		c.gate.log.Error("journal cannot be written", "request", c.method.EntryPoint(), "error", err)
	}
	return err
}

// createdContainer returns the container id of a CreateContainer, else nothing.
func (c *call) createdContainer() string {
	if create, ok := c.request.(*agentpb.CreateContainerRequest); ok {
		return create.GetContainerId()
	}
	return ""
}

// observed reports whether policies may want to see the answer to this request.
func (c *call) observed() bool {
	_, ok := c.request.(*agentpb.WaitProcessRequest)
	return ok
}

// observe shows the policy the agent's answer. What the policy makes of it is state, so it is settled before the client,
// which acts on the same answer, gets it. A failure leaves the state behind, never ahead: the answer passes all the same.
func (c *call) observe(ctx context.Context, of *engine.Verdict, resp proto.Message) {
	v, err := c.gate.policies.Observe(ctx, engine.Request{
		EntryPoint: string(c.method.Response.Descriptor().Name()),
		Generation: of.Generation,
		Input:      func(*engine.Policy) (ast.Value, error) { return c.observation(resp) },
	})
	if err != nil {
		c.unobserved(err.Error())
		return
	}
	defer v.Discard()
	if v.Reason != "" {
		c.unobserved(v.Reason)
	}
	if v.Holds() && c.journal(v.Next(), "", "") == nil {
		_ = v.Commit() // it was neither discarded nor doubted
	}
}

// unobserved says that the policy's state does not follow an answer.
func (c *call) unobserved(reason string) {
	if c.gate.quiet.Allow() {
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
