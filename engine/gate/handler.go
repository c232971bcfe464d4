package gate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/containerd/ttrpc"
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
	method  agentproto.Method
	request proto.Message
}

// handler returns the handler of one method. It denies on a panic, and the process lives.
func (s *session) handler(m agentproto.Method) ttrpc.Method {
	return func(ctx context.Context, unmarshal func(any) error) (resp any, err error) {
		if t, ok := s.gate.tickets.find(ctx); ok {
			defer t.release()
			if mayBlock[m.Name] {
				t.markBlocking()
			}
		}
		defer func() {
			if p := recover(); p != nil {
				s.gate.log.Error("request handler panicked", "method", m.Name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				resp, err = nil, status.Errorf(codes.Internal, "%s failed inside the policy gate", m.EntryPoint())
			}
		}()
		request, err := decode(m, unmarshal)
		if err != nil {
			return nil, err
		}
		c := &call{session: s, method: m, request: request}
		return c.serve(ctx)
	}
}

// decode reads the request and refuses what the policy would not see.
func decode(m agentproto.Method, unmarshal func(any) error) (proto.Message, error) {
	var encoded opaque
	if err := unmarshal(&encoded); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "%s cannot be read", m.EntryPoint())
	}
	request, err := agentproto.Decode(m.Request, encoded.wire)
	if errors.Is(err, agentproto.ErrUnknownField) {
		return nil, denial(m, err.Error())
	}
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "%s cannot be decoded: %s", m.EntryPoint(), engine.OneLine(err.Error(), maxDenial))
	}
	return request, nil
}

// denial is what a client is told of a denied request.
func denial(m agentproto.Method, reason string) error {
	return status.Error(codes.PermissionDenied, engine.OneLine(m.EntryPoint()+" is blocked by policy: "+reason, maxDenial))
}

// serve answers one request.
func (c *call) serve(ctx context.Context) (any, error) {
	switch r := c.request.(type) {
	case *agentpb.SetPolicyRequest:
		if err := c.gate.policies.SetPolicy(ctx, []byte(r.GetPolicy())); err != nil {
			return nil, err
		}
		return &emptypb.Empty{}, nil
	case *agentpb.CheckRequest:
		return c.health(ctx)
	}
	v, err := c.judge(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case v == nil:
		return c.redacted(ctx)
	case v.Holds():
		return c.forwardHeld(ctx, v)
	case c.isFile():
		return c.forwardFile(ctx)
	default:
		return c.forward(ctx, v)
	}
}

// judge returns the verdict of an allowed request, or the error that denies it. A denied read of a container's output
// gives neither: it is to be answered without the output.
func (c *call) judge(ctx context.Context) (*engine.Verdict, error) {
	if err := c.gate.protected.check(c.request); err != nil {
		return c.denied(err.Error())
	}
	key, err := c.key()
	if err != nil {
		return nil, err
	}
	v, err := c.gate.policies.Judge(ctx, engine.Request{EntryPoint: c.method.EntryPoint(), Key: key, Input: c.input})
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, answer(ctx, ctx.Err())
	case err != nil:
		return c.denied(err.Error())
	case !v.Allowed:
		return c.denied(v.Reason)
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

// denied ends a request that may not run.
func (c *call) denied(reason string) (*engine.Verdict, error) {
	c.record(false, reason)
	if _, ok := c.request.(*agentpb.ReadStreamRequest); ok && c.gate.policies.Started() {
		return nil, nil
	}
	if c.gate.quiet.Allow() {
		c.gate.log.Info("request denied", "request", c.method.EntryPoint(), "reason", reason)
	}
	return nil, denial(c.method, reason)
}

// key is the cache key of a small request, zero for a large one.
func (c *call) key() ([32]byte, error) {
	if proto.Size(c.request) > maxCached {
		return [32]byte{}, nil
	}
	wire, err := agentproto.Encode(c.request)
	if err != nil {
		return [32]byte{}, status.Errorf(codes.InvalidArgument, "%s cannot be encoded", c.method.EntryPoint())
	}
	return sha256.Sum256(wire), nil
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
		c.gate.log.Warn("request is not in the debug log", "request", event.Kind, "error", err)
		return
	}
	event.Request = request
	c.gate.trace.Record(event)
}

func inputJSON(request proto.Message) (json.RawMessage, error) {
	input, err := agentproto.Input(request)
	if err != nil {
		return nil, err
	}
	if file, ok := request.(*agentpb.CopyFileRequest); ok {
		input = contents(input, file.GetData(), func(string) bool { return true }) // to be replayed by rules that name them
	}
	plain, err := ast.JSON(input)
	if err != nil {
		return nil, err
	}
	return json.Marshal(plain)
}

// health passes the agent's health on; without an agent the gate answers for itself, so that a client can set the policy
// before the agent is there.
func (c *call) health(ctx context.Context) (any, error) {
	resp, err := c.forward(ctx, nil)
	if err == nil || isAnswer(err) && status.Code(err) != codes.Unavailable {
		return resp, err
	}
	if c.method.Name == "Version" {
		return &agentpb.VersionCheckResponse{GrpcVersion: apiVersion, AgentVersion: "portcullis"}, nil
	}
	return &agentpb.HealthCheckResponse{Status: agentpb.HealthCheckResponse_SERVING}, nil
}

// apiVersion is the version of the agent's API that agents answer with.
const apiVersion = "0.0.1"
