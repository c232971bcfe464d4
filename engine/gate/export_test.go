// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"crypto/sha256"
	"strings"

	"google.golang.org/protobuf/proto"

	"portcullis/agentproto"
	"portcullis/engine"
)

// PanicOn makes every judgement of a method panic, as a defect in the gate would.
func (g *Gate) PanicOn(method string) {
	g.policies = panicking{g.policies, method + "Request"}
}

type panicking struct {
	Policies
	entryPoint string
}

func (p panicking) Admit(ctx context.Context, r engine.Request) (*engine.Verdict, error) {
	if r.EntryPoint == p.entryPoint {
		panic("planted")
	}
	return p.Policies.Admit(ctx, r)
}

// Decide judges a message as a handler does, from the encoding for the cache to the verdict.
func Decide(ctx context.Context, e *engine.Engine, request proto.Message) (*engine.Verdict, error) {
	name := strings.TrimSuffix(string(request.ProtoReflect().Descriptor().Name()), "Request")
	m, _ := agentproto.Lookup("grpc.AgentService", name)
	c := &call{method: m, request: request}
	wire, err := agentproto.Encode(request)
	if err != nil {
		return nil, err
	}
	return e.Judge(ctx, engine.Request{EntryPoint: m.EntryPoint(), Key: sha256.Sum256(wire), Input: c.input})
}

// FactOf returns what asks whether a request is a fact for that record.
func FactOf(r Record, request proto.Message) func() bool {
	c := &call{session: &session{gate: &Gate{record: r}}, request: request}
	return func() bool {
		_, ok := c.fact()
		return ok
	}
}
