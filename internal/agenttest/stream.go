// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"portcullis/agentproto/agentpb"
)

// maxRead bounds what one read returns, in bytes, whatever was asked for.
const maxRead = 1 << 20

func (s *sandbox) writeStdin(ctx context.Context, q *agentpb.WriteStreamRequest) (*agentpb.WriteStreamResponse, error) {
	p, err := s.process(q.GetContainerId(), q.GetExecId())
	if err != nil {
		return nil, status.Error(codes.Internal, status.Convert(err).Message())
	}
	if len(q.GetData()) == 0 {
		p.stdin.close()
		return &agentpb.WriteStreamResponse{}, nil
	}
	n, err := p.stdin.write(ctx, q.GetData())
	if errors.Is(err, io.ErrClosedPipe) {
		return nil, status.Error(codes.Internal, "cannot get writer")
	}
	if err != nil {
		return nil, err
	}
	return &agentpb.WriteStreamResponse{Len: uint32(n)}, nil
}

func (s *sandbox) readStdout(ctx context.Context, q *agentpb.ReadStreamRequest) (*agentpb.ReadStreamResponse, error) {
	return s.read(ctx, q, func(p *process) *pipe { return p.stdout })
}

func (s *sandbox) readStderr(ctx context.Context, q *agentpb.ReadStreamRequest) (*agentpb.ReadStreamResponse, error) {
	return s.read(ctx, q, func(p *process) *pipe { return p.stderr })
}

func (s *sandbox) read(ctx context.Context, q *agentpb.ReadStreamRequest, of func(*process) *pipe) (*agentpb.ReadStreamResponse, error) {
	p, err := s.process(q.GetContainerId(), q.GetExecId())
	if err != nil {
		return nil, err
	}
	if q.GetLen() == 0 {
		return &agentpb.ReadStreamResponse{}, nil
	}
	data := make([]byte, min(q.GetLen(), maxRead))
	n, err := of(p).read(ctx, data)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return &agentpb.ReadStreamResponse{Data: data[:n]}, nil // nothing is the end
}

func (s *sandbox) closeStdin(_ context.Context, q *agentpb.CloseStdinRequest) (*emptypb.Empty, error) {
	p, err := s.process(q.GetContainerId(), q.GetExecId())
	if err != nil {
		return nil, err
	}
	p.stdin.close()
	return &emptypb.Empty{}, nil
}

func (s *sandbox) ttyWinResize(_ context.Context, q *agentpb.TtyWinResizeRequest) (*emptypb.Empty, error) {
	p, err := s.process(q.GetContainerId(), q.GetExecId())
	if err != nil {
		return nil, err
	}
	if !p.spec.GetTerminal() {
		return nil, status.Error(codes.Unavailable, "no tty")
	}
	return &emptypb.Empty{}, nil
}
