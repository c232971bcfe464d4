// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"portcullis/agentproto"
	"portcullis/agentproto/agentpb"
	"portcullis/engine"
	"portcullis/engine/trace"
)

// maxDenial is the longest denial on the wire, in bytes.
const maxDenial = 1024

// maxCached is the largest request that may be served from the engine's cache: hashing more costs as much as deciding.
const maxCached = 4 << 10

// mayBlock lists the methods that last as long as a container or the pod runs; Shutdown does not wait for them.
var mayBlock = map[string]bool{"WaitProcess": true, "GetOOMEvent": true, "ReadStdout": true, "ReadStderr": true, "WriteStdin": true}

// call is one request on its way.
type call struct {
	*session
	id      uint32 // of the stream
	method  agentproto.Method
	request proto.Message
	payload []byte // the encoded request, in message
	message []byte // what the request came in, and its bytes fields are in; nil once it is given back or must not be
	ticket  *ticket
	weight  int64             // of the request
	key     [sha256.Size]byte // of the request for the engine's cache; zero: it is not kept there
	traced  uint64            // its number in the decision log; 0: not there, or no answer is recorded
	// doubtful: the request was on its way, and nobody knows whether the agent has carried it out.
	doubtful bool
	copies   bool            // it has the turn of CopyFile
	recalled *engine.Verdict // of a request that is sent as it came; nil for all others
}

// decode reads the request, once there is room for what it becomes, and refuses what the policy would not see.
func (c *call) decode() error {
	defer func() {
		if p := recover(); p != nil {
			c.logPanic(p)
			c.request = nil
		}
	}()
	scanned, err := agentproto.Scan(c.method.Request, c.payload)
	c.weight = scanned.Weight
	if errors.Is(err, agentproto.ErrTooHeavy) {
		return status.Error(codes.ResourceExhausted, errTooHeavy.Error())
	}
	if err == nil {
		var ok bool
		if c.ticket.decoded, ok = c.decoded.takeWithin(c.ctx, scanned.Weight, c.gate.limits.ByteWait); !ok {
			return status.Error(codes.ResourceExhausted, c.tooHeavy(scanned.Weight).Error())
		}
		c.request, err = scanned.Decode()
	}
	if errors.Is(err, agentproto.ErrUnknownField) {
		return denial(c.method, err.Error())
	}
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "%s cannot be decoded: %s", c.method.EntryPoint(), engine.OneLine(err.Error(), maxDenial))
	}
	return nil
}

// tooHeavy says why there was no room for a request of that weight.
func (c *call) tooHeavy(weight int64) error {
	if weight > c.decoded.of.size {
		return errTooHeavy
	}
	return errTooMuchData
}

// run serves the request and answers it, or leaves that to the agent's answer. It denies on a panic, and the process lives.
func (c *call) run(timeout time.Duration) {
	ctx, cancel := c.ctx, context.CancelFunc(func() {})
	if timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, timeout)
	}
	over := func() {
		cancel()
		c.ticket.release()
	}
	defer func() {
		if p := recover(); p != nil {
			c.panicked(p)
			over()
		}
	}()
	if c.request == nil && c.recalled == nil {
		c.end(nil, c.failed())
		over()
		return
	}
	r, message, err := c.serve(ctx, over)
	switch {
	case errors.Is(err, errUnderWay):
		return
	case r == nil:
		c.end(message, err)
	default:
		c.pass(r)
	}
	over()
}

// pass gives the client the agent's answer as it came.
func (c *call) pass(r *reply) {
	c.giveBack()
	c.session.write(c.id, r.frame)
	r.release()
}

// failed is the answer to a request that met a fault of ours.
func (c *call) failed() error {
	return status.Errorf(codes.Internal, "%s failed inside the policy gate", c.method.EntryPoint())
}

// panicked logs a panic and answers the request.
func (c *call) panicked(p any) {
	c.logPanic(p)
	c.end(nil, c.failed())
}

func (c *call) logPanic(p any) {
	c.gate.log.Error("request handler panicked", "method", c.method.Name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
}

// end answers with a message or an error of our own, and closes the request's account when the answer has left.
func (c *call) end(message proto.Message, err error) {
	if err != nil {
		c.session.slowDown(len(c.message), c.weight)
	}
	c.giveBack()
	c.session.answer(c.id, message, err)
	c.ticket.release()
}

// giveBack gives back what the request came in and what it became: it is with the agent, or denied.
func (c *call) giveBack() {
	if c.message != nil {
		c.gate.buffers.put(c.message)
		c.message, c.payload = nil, nil
	}
	c.ticket.bytes.release()
	c.ticket.decoded.release()
}

// denial is the status that a client gets for a denied request.
func denial(m agentproto.Method, reason string) error {
	return status.Error(codes.PermissionDenied, engine.OneLine(m.EntryPoint()+" is blocked by policy: "+reason, maxDenial))
}

// serve gives the agent's answer as it came, or a message of our own, or an error: errUnderWay when the agent's answer concludes the
// call, over included.
func (c *call) serve(ctx context.Context, over func()) (*reply, proto.Message, error) {
	if c.recalled != nil {
		return nil, nil, c.repeat(ctx, over)
	}
	switch r := c.request.(type) {
	case *agentpb.SetPolicyRequest:
		attend()
		if err := c.gate.policies.SetPolicy(ctx, []byte(r.GetPolicy())); err != nil {
			return nil, nil, err
		}
		return nil, &emptypb.Empty{}, nil
	case *agentpb.CheckRequest:
		return c.health(ctx)
	}
	defer c.endTurn()
	v, err := c.authorize(ctx)
	if err != nil {
		return nil, nil, err
	}
	if v == nil {
		message, err := c.redacted(ctx)
		return nil, message, err
	}
	if c.plain(v) {
		return nil, nil, c.forwardPlain(ctx, v, over)
	}
	r, err := c.forwardRecorded(ctx, v)
	return r, nil, err
}

func (c *call) forwardAllowed(ctx context.Context, v *engine.Verdict) (*reply, error) {
	switch {
	case v.Holds():
		return c.forwardHeld(ctx, v)
	case c.isFile():
		return c.forwardFile(ctx, v)
	default:
		return c.forward(ctx, v)
	}
}

// authorize returns the verdict of an allowed request, or the error that denies it. A denied read of a container's output
// gives neither: it is to be answered without the output.
func (c *call) authorize(ctx context.Context) (v *engine.Verdict, err error) {
	defer func(began time.Time) { c.count(ctx, v != nil, time.Since(began)) }(time.Now())
	if err := c.gate.protected.check(c.request); err != nil {
		return nil, c.refused(err.Error())
	}
	v, err = c.judge(ctx)
	if err == nil && v.Allowed && c.isFile() {
		v, err = c.inTurn(ctx, v)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, answer(ctx, ctx.Err())
	case err != nil:
		return c.denied(err.Error())
	case !v.Allowed:
		return c.denied(v.Reason)
	}
	if err := c.lookAgain(v); err != nil {
		return nil, err
	}
	if err := c.takeID(ctx); err != nil {
		v.Discard()
		return nil, err
	}
	if v.Waived {
		c.gate.log.Warn("denied request let pass by AllowRequestsFailingPolicy", "request", c.method.EntryPoint(), "reason", v.Reason)
	}
	c.record(true, v.Reason)
	return v, nil
}

// judge asks the policy.
func (c *call) judge(ctx context.Context) (*engine.Verdict, error) {
	attend()
	v, err := c.gate.policies.Admit(ctx, engine.Request{EntryPoint: c.method.EntryPoint(), Key: c.key, Input: c.input, Turns: c.evaluating})
	if err != nil {
		c.message = nil // an evaluation that was given up may still be reading it
	}
	return v, err
}

// count keeps account of a decision, if it came to one, and tells it at level debug.
func (c *call) count(ctx context.Context, allowed bool, took time.Duration) {
	if !allowed && ctx.Err() != nil {
		return
	}
	c.gate.counts.add(c.method.EntryPoint(), allowed, took)
	if c.gate.log.Enabled(ctx, slog.LevelDebug) {
		c.gate.log.Debug("decided", "request", c.method.EntryPoint(), "allowed", allowed, "took", took)
	}
}

// denied ends a request that the policy does not allow. Output is read all the same, and withheld.
func (c *call) denied(reason string) (*engine.Verdict, error) {
	if c.readsOutput() && c.gate.policies.Started() {
		c.record(false, reason)
		return nil, nil
	}
	return nil, c.refused(reason)
}

// refused ends a request of which the agent hears nothing.
func (c *call) refused(reason string) error {
	c.record(false, reason)
	if c.gate.logLimit.Allow() {
		c.gate.log.Info("request denied", "request", c.method.EntryPoint(), "reason", reason)
	}
	return denial(c.method, reason)
}

// readsOutput reports whether the request is for a container's output.
func (c *call) readsOutput() bool {
	_, ok := c.request.(*agentpb.ReadStreamRequest)
	return ok
}

// input builds what the policy sees, less the bytes that it cannot reach.
func (c *call) input(p *engine.Policy) (ast.Value, error) {
	entry := c.method.EntryPoint()
	var omit [][]string
	for _, path := range agentproto.BytesFields(c.method.Request) {
		if !p.Reaches(entry, path...) {
			omit = append(omit, path)
		}
	}
	input, err := agentproto.Input(c.request, omit...)
	if err != nil {
		return nil, err
	}
	if file, ok := c.request.(*agentpb.CopyFileRequest); ok {
		return contents(input, file.GetData(), func(name string) bool { return p.Names(entry, name) }), nil
	}
	return input, nil
}

// contents adds what rules may ask of a file's data: its digest and its length, each to the policy that names it.
func contents(input ast.Value, data []byte, named func(string) bool) ast.Value {
	var items [][2]*ast.Term
	if named("data_sha256") {
		sum := sha256.Sum256(data)
		items = append(items, ast.Item(ast.StringTerm("data_sha256"), ast.StringTerm(hex.EncodeToString(sum[:]))))
	}
	if named("data_size") {
		items = append(items, ast.Item(ast.StringTerm("data_size"), ast.NewTerm(ast.Number(strconv.Itoa(len(data))))))
	}
	if items == nil {
		return input
	}
	merged, _ := input.(ast.Object).Merge(ast.NewObject(items...))
	return merged
}

// record writes the decision to the decision log, if there is one, with all the request's bytes.
func (c *call) record(allowed bool, reason string) {
	if c.gate.trace == nil {
		return
	}
	event := trace.Event{Kind: c.method.EntryPoint(), Allowed: allowed, Reason: reason, Time: time.Now()}
	request, err := inputJSON(c.request)
	if err != nil {
		c.gate.log.Warn("request is not in the decision log", "request", event.Kind, "error", err)
		return
	}
	event.Request = request
	event.Sent = allowed && c.method.Name != "WaitProcess" // whose answer comes when a process ends: what the policy sees of it is recorded
	c.traced = c.gate.trace.Record(event)
}

// recordAnswer writes to the decision log what the agent answered, before the policy's state follows it: what is decided by the new
// state comes after it.
func (c *call) recordAnswer(err error) {
	switch {
	case c.traced == 0:
	case err == nil:
		c.gate.trace.Answer(c.traced, trace.Done, "")
	case errors.Is(err, ErrAgentAbsent), isAnswer(err):
		c.gate.trace.Answer(c.traced, trace.Refused, engine.OneLine(err.Error(), maxDenial))
	default:
		c.gate.trace.Answer(c.traced, trace.Unknown, engine.OneLine(err.Error(), maxDenial))
	}
}

func inputJSON(request proto.Message) (json.RawMessage, error) {
	input, err := agentproto.Input(request)
	if err != nil {
		return nil, err
	}
	if file, ok := request.(*agentpb.CopyFileRequest); ok {
		input = contents(input, file.GetData(), func(string) bool { return true }) // to be replayed by rules that name them
	}
	return plainJSON(input)
}

func plainJSON(v ast.Value) (json.RawMessage, error) {
	plain, err := ast.JSON(v)
	if err != nil {
		return nil, err
	}
	return json.Marshal(plain)
}

// health passes the agent's health on; without an agent the gate answers for itself, so that a client can set the policy
// before the agent is there.
func (c *call) health(ctx context.Context) (*reply, proto.Message, error) {
	r, err := c.forward(ctx, nil)
	if err == nil || isAnswer(err) && status.Code(err) != codes.Unavailable {
		return r, nil, err
	}
	if c.method.Name == "Version" {
		return nil, &agentpb.VersionCheckResponse{GrpcVersion: apiVersion, AgentVersion: "portcullis"}, nil
	}
	return nil, &agentpb.HealthCheckResponse{Status: agentpb.HealthCheckResponse_SERVING}, nil
}

// apiVersion is the version of the agent's API that agents answer with.
const apiVersion = "0.0.1"
