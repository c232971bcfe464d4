// SPDX-License-Identifier: Apache-2.0

package peerpods_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"portcullis/agentproto/agentpb"
	"portcullis/internal/emulator/peerpods"
)

func container() *agentpb.CreateContainerRequest {
	return &agentpb.CreateContainerRequest{ContainerId: "c", OCI: &agentpb.Spec{
		Annotations: map[string]string{"a": "b"},
		Mounts:      []*agentpb.Mount{{Destination: "/data", Source: "/run/shared/data", Type: "local", Options: []string{"rbind"}}},
		Linux:       &agentpb.Linux{Namespaces: []*agentpb.LinuxNamespace{{Type: "ipc"}}},
	}}
}

func TestProxyAddsAnnotationsAlone(t *testing.T) {
	p := peerpods.Proxy{CSITargets: []string{"", "/a"}, GPUs: true, Volumes: []peerpods.CloudVolume{{MountPoint: "/data", FSType: "ext4", LUN: "0", DiskID: "d"}}}
	before := container()
	got, err := p.Pass(before)
	if err != nil {
		t.Fatal(err)
	}
	want := container()
	want.OCI.Annotations = map[string]string{
		"a": "b", "cdi.k8s.io/peer-pods": "nvidia.com/gpu=all",
		"io.confidentialcontainers.org.peerpodvolumes.target_path": ",/a",
		"io.confidentialcontainers.org.cloud_volumes":              `{"vol-0":{"mount_point":"/data","fs_type":"ext4","lun":"0","disk_id":"d"}}`,
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("differs (-want +got):\n%s", diff)
	}
	if !proto.Equal(before, container()) {
		t.Error("the original was changed")
	}
}

func TestForwarderAddsTheNetworkAndMountsDisks(t *testing.T) {
	p := peerpods.Proxy{Volumes: []peerpods.CloudVolume{{MountPoint: "/data", FSType: "ext4", LUN: "0", DiskID: "d"}}}
	passed, err := p.Pass(container())
	if err != nil {
		t.Fatal(err)
	}
	got, err := peerpods.Forward(passed)
	if err != nil {
		t.Fatal(err)
	}
	want := proto.Clone(passed).(*agentpb.CreateContainerRequest)
	want.OCI.Linux.Namespaces = append(want.OCI.Linux.Namespaces, &agentpb.LinuxNamespace{Type: "network", Path: "/run/netns/podns"})
	want.OCI.Mounts[0].Source, want.OCI.Mounts[0].Type = "/run/cloud-volumes/vol-0", "bind"
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("differs (-want +got):\n%s", diff)
	}
}

func TestForwarderEmptiesNameServersAndPassesTheRest(t *testing.T) {
	got, err := peerpods.Forward(&agentpb.CreateSandboxRequest{Hostname: "h", Dns: []string{"nameserver 1"}})
	if err != nil || !proto.Equal(got, &agentpb.CreateSandboxRequest{Hostname: "h"}) {
		t.Errorf("sandbox becomes %v (%v)", got, err)
	}
	start := &agentpb.StartContainerRequest{ContainerId: "c"}
	if got, err := peerpods.Forward(start); err != nil || got != proto.Message(start) {
		t.Errorf("start becomes %v (%v)", got, err)
	}
}
