// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"errors"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto"
)

// behaviour answers one method. Nil answers with an empty message.
type behaviour func(context.Context, proto.Message) (proto.Message, error)

// on gives a behaviour its types.
func on[Q, R proto.Message](answer func(context.Context, Q) (R, error)) behaviour {
	return func(ctx context.Context, request proto.Message) (proto.Message, error) {
		return answer(ctx, request.(Q))
	}
}

// handler is the one path of all methods: record, hooks, behaviour.
func (a *Agent) handler(m agentproto.Method, s *sandbox, answer behaviour) ttrpc.Method {
	return func(ctx context.Context, unmarshal func(any) error) (_ any, err error) {
		defer func() { // a panic here would end the test binary
			if p := recover(); p != nil {
				err = status.Errorf(codes.Internal, "agent panicked in %s: %v", m.Name, p)
			}
		}()
		request := m.Request.New().Interface()
		if err := unmarshal(request); err != nil {
			return nil, err
		}
		ctx = s.find(ctx, request)
		if a.options.Log != nil {
			a.options.Log(Request{Service: m.Service, Method: m.Name, Message: request})
		}
		if err := a.hooks.enter(ctx, Request{Service: m.Service, Method: m.Name, Message: request}); err != nil {
			return nil, statusError(err)
		}
		reply := m.Response.New().Interface()
		if answer != nil {
			if reply, err = answer(ctx, request); err != nil {
				return nil, statusError(err)
			}
		}
		if err := a.hooks.leave(ctx, m.Name); err != nil {
			return nil, statusError(err)
		}
		return reply, nil
	}
}

// statusError gives every error a code; ttrpc knows context errors only unwrapped.
func statusError(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	return status.Error(codes.Internal, err.Error())
}
