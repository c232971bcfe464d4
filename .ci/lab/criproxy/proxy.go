// SPDX-License-Identifier: Apache-2.0

// Package criproxy stands between the kubelet and containerd, passes every call on unchanged, and writes down those that make
// something.
package criproxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"portcullis/ci/lab/recording"
)

const service = "/runtime.v1.RuntimeService/"

// raw passes messages as the bytes they came in.
type raw struct{}

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func (raw) Name() string { return "proto" }

var _ encoding.CodecV2 = raw{}

// Proxy listens where the kubelet looks for its runtime.
type Proxy struct {
	backend *grpc.ClientConn
	dir     string

	mu sync.Mutex
	n  int
}

// New passes calls on to the socket of containerd, and writes records into dir.
func New(containerd, dir string) (*Proxy, error) {
	conn, err := grpc.NewClient("unix://"+containerd, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return nil, fmt.Errorf("CRI proxy: connect to %s: %w", containerd, err)
	}
	return &Proxy{backend: conn, dir: dir}, nil
}

// Serve blocks for as long as the listener lives.
func (p *Proxy) Serve(l net.Listener) error {
	s := grpc.NewServer(grpc.ForceServerCodecV2(raw{}), grpc.MaxRecvMsgSize(64<<20), grpc.UnknownServiceHandler(p.pass))
	return s.Serve(l)
}

// pass joins the two streams; unary calls are streams of one message.
func (p *Proxy) pass(_ any, kubelet grpc.ServerStream) error {
	method, ok := grpc.MethodFromServerStream(kubelet)
	if !ok {
		return status.Error(codes.Internal, "CRI proxy: a call without a method")
	}
	ctx, cancel := context.WithCancel(kubelet.Context())
	defer cancel()
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = metadata.NewOutgoingContext(ctx, md.Copy())
	}
	runtime, err := p.backend.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		return err
	}
	var request atomic.Pointer[[]byte]
	go func() {
		for {
			var m []byte
			if err := kubelet.RecvMsg(&m); err != nil {
				runtime.CloseSend()
				return
			}
			request.Store(&m)
			if runtime.SendMsg(&m) != nil {
				return
			}
		}
	}()
	for {
		var m []byte
		if err := runtime.RecvMsg(&m); err != nil {
			if errors.Is(err, io.EOF) {
				kubelet.SetTrailer(runtime.Trailer())
				return nil
			}
			return err
		}
		if asked := request.Load(); asked != nil {
			if err := p.record(method, *asked, m); err != nil {
				return status.Errorf(codes.Internal, "CRI proxy: record %s: %v", method, err)
			}
		}
		if err := kubelet.SendMsg(&m); err != nil {
			return err
		}
	}
}

// record keeps what makes sandboxes, containers and execs.
func (p *Proxy) record(method string, request, reply []byte) error {
	call := recording.RawCall{}
	var message proto.Message
	switch method {
	case service + "RunPodSandbox":
		asked, made := &cri.RunPodSandboxRequest{}, &cri.RunPodSandboxResponse{}
		if err := decode(request, asked, reply, made); err != nil {
			return err
		}
		call, message = recording.RawCall{Method: "RunPodSandbox", ID: made.PodSandboxId, Sandbox: made.PodSandboxId}, asked
	case service + "CreateContainer":
		asked, made := &cri.CreateContainerRequest{}, &cri.CreateContainerResponse{}
		if err := decode(request, asked, reply, made); err != nil {
			return err
		}
		call, message = recording.RawCall{Method: "CreateContainer", ID: made.ContainerId, Sandbox: asked.PodSandboxId}, asked.Config
	case service + "ExecSync":
		asked := &cri.ExecSyncRequest{}
		if err := proto.Unmarshal(request, asked); err != nil {
			return err
		}
		call, message = recording.RawCall{Method: "ExecSync", ID: asked.ContainerId}, asked
	default:
		return nil
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(message)
	if err != nil {
		return err
	}
	call.Request = text
	return p.write(call)
}

func decode(request []byte, asked proto.Message, reply []byte, made proto.Message) error {
	if err := proto.Unmarshal(request, asked); err != nil {
		return err
	}
	return proto.Unmarshal(reply, made)
}

func (p *Proxy) write(call recording.RawCall) error {
	b, err := json.Marshal(call)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.n++
	name := filepath.Join(p.dir, fmt.Sprintf("call-%06d.json", p.n))
	p.mu.Unlock()
	return os.WriteFile(name, b, 0o600)
}
