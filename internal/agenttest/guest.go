// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"portcullis/agentproto/agentpb"
)

// sharedRoot is the tree below which CopyFile may write.
const sharedRoot = "/run/kata-containers/shared/containers/"

func (s *sandbox) createSandbox(_ context.Context, q *agentpb.CreateSandboxRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hostname = q.GetHostname()
	if dir := s.options.SharedDir; dir != "" {
		if err := os.RemoveAll(dir); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
	}
	return &emptypb.Empty{}, nil
}

func (s *sandbox) destroySandbox(context.Context, *agentpb.DestroySandboxRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, c := range s.containers {
		c.kill()
		delete(s.containers, id)
	}
	if s.options.EndsWithSandbox {
		s.retire()
	}
	return &emptypb.Empty{}, nil
}

func (s *sandbox) copyFile(_ context.Context, q *agentpb.CopyFileRequest) (*emptypb.Empty, error) {
	if !strings.HasPrefix(path.Clean(q.GetPath()), sharedRoot) {
		return nil, status.Errorf(codes.Internal, "removing %q prefix from %s", sharedRoot, q.GetPath())
	}
	return &emptypb.Empty{}, nil
}

func (s *sandbox) getOOMEvent(ctx context.Context, _ *agentpb.GetOOMEventRequest) (*agentpb.OOMEvent, error) {
	select {
	case id := <-s.oom:
		return &agentpb.OOMEvent{ContainerId: id}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *sandbox) getGuestDetails(_ context.Context, q *agentpb.GuestDetailsRequest) (*agentpb.GuestDetailsResponse, error) {
	details := &agentpb.GuestDetailsResponse{
		AgentDetails: &agentpb.AgentDetails{
			Version:         s.options.Version,
			StorageHandlers: []string{"blk", "ephemeral", "image_guest_pull", "local", "overlayfs"},
			SupportsSeccomp: true,
		},
	}
	if q.GetMemBlockSize() {
		details.MemBlockSizeBytes = 128 << 20
	}
	return details, nil
}

func (s *sandbox) getMetrics(context.Context, *agentpb.GetMetricsRequest) (*agentpb.Metrics, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := fmt.Sprintf("# HELP kata_agent_containers Containers of the sandbox.\n"+
		"# TYPE kata_agent_containers gauge\nkata_agent_containers %d\n", len(s.containers))
	return &agentpb.Metrics{Metrics: text}, nil
}

func (s *sandbox) getDiagnosticData(_ context.Context, q *agentpb.GetDiagnosticDataRequest) (*agentpb.GetDiagnosticDataResponse, error) {
	return &agentpb.GetDiagnosticDataResponse{}, s.withContainer(q.GetContainerId(), codes.Internal, func(*container) error { return nil })
}

func (s *sandbox) getVolumeStats(_ context.Context, q *agentpb.VolumeStatsRequest) (*agentpb.VolumeStatsResponse, error) {
	if q.GetVolumeGuestPath() == "" {
		return nil, status.Error(codes.Internal, "no volume path")
	}
	return &agentpb.VolumeStatsResponse{
		Usage: []*agentpb.VolumeUsage{
			{Available: 3 << 30, Total: 4 << 30, Used: 1 << 30, Unit: agentpb.VolumeUsage_BYTES},
			{Available: 3 << 16, Total: 4 << 16, Used: 1 << 16, Unit: agentpb.VolumeUsage_INODES},
		},
		VolumeCondition: &agentpb.VolumeCondition{},
	}, nil
}

// updateInterface replaces the interface with the same MAC address, or adds it.
func (s *sandbox) updateInterface(_ context.Context, q *agentpb.UpdateInterfaceRequest) (*agentpb.Interface, error) {
	link := q.GetInterface()
	if link == nil {
		return nil, status.Error(codes.InvalidArgument, "empty update interface request")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.interfaces = slices.DeleteFunc(slices.Clone(s.interfaces), func(old *agentpb.Interface) bool {
		return old.GetHwAddr() == link.GetHwAddr()
	})
	s.interfaces = append(s.interfaces, link)
	return link, nil
}

func (s *sandbox) updateRoutes(_ context.Context, q *agentpb.UpdateRoutesRequest) (*agentpb.Routes, error) {
	if q.GetRoutes() == nil {
		return nil, status.Error(codes.InvalidArgument, "empty update routes request")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.routes = q.GetRoutes().GetRoutes()
	return &agentpb.Routes{Routes: s.routes}, nil
}

func (s *sandbox) listInterfaces(context.Context, *agentpb.ListInterfacesRequest) (*agentpb.Interfaces, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &agentpb.Interfaces{Interfaces: s.interfaces}, nil
}

func (s *sandbox) listRoutes(context.Context, *agentpb.ListRoutesRequest) (*agentpb.Routes, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &agentpb.Routes{Routes: s.routes}, nil
}

func (s *sandbox) getIPTables(context.Context, *agentpb.GetIPTablesRequest) (*agentpb.GetIPTablesResponse, error) {
	return &agentpb.GetIPTablesResponse{Data: []byte("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n")}, nil
}

func (s *sandbox) check(context.Context, *agentpb.CheckRequest) (*agentpb.HealthCheckResponse, error) {
	return &agentpb.HealthCheckResponse{Status: agentpb.HealthCheckResponse_SERVING}, nil
}

func (s *sandbox) version(context.Context, *agentpb.CheckRequest) (*agentpb.VersionCheckResponse, error) {
	return &agentpb.VersionCheckResponse{GrpcVersion: "0.0.1", AgentVersion: s.options.Version}, nil
}
