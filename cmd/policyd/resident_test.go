package main

import (
	"fmt"
	"os"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"portcullis/agentproto/agentpb"
)

// maxResident is what policyd may have in memory after the demo's pod, in bytes.
const maxResident = 35_000_000

func TestResidentAfterThePodOfTheDemo(t *testing.T) {
	policy, err := os.ReadFile("../policyctl/demo/policy.rego")
	if err != nil {
		t.Fatal(err)
	}
	p := startProcess(t, setPolicyOnly)
	p.must("SetPolicy", &agentpb.SetPolicyRequest{Policy: string(policy)})
	p.must("CreateSandbox", &agentpb.CreateSandboxRequest{SandboxId: "pod"})
	shop := container("app-1")
	shop.OCI.Process.Args, shop.OCI.Process.Env = []string{"/bin/shop"}, []string{"DB=db.svc"}
	shop.OCI.Annotations = map[string]string{
		"io.kubernetes.cri.container-name": "app", "io.kubernetes.cri.image-name": "registry.example/shop@sha256:bbbb",
	}
	p.must("CreateContainer", shop)
	p.must("StartContainer", &agentpb.StartContainerRequest{ContainerId: "app-1"})
	for i := range 200 {
		probe := &agentpb.ExecProcessRequest{ContainerId: "app-1", ExecId: fmt.Sprintf("probe-%d", i),
			Process: &agentpb.Process{Args: []string{"/bin/probe", "--live"}, Cwd: "/"}}
		p.must("ExecProcess", probe)
		p.must("StatsContainer", &agentpb.StatsContainerRequest{ContainerId: "app-1"})
		probe.Process.Terminal = true
		if err := p.call("ExecProcess", probe); status.Code(err) != codes.PermissionDenied {
			t.Fatal(err)
		}
	}
	resident := p.memory("VmRSS")
	t.Logf("%.1f MB are resident", float64(resident)/1e6)
	if resident > maxResident {
		t.Errorf("%d bytes are resident, at most %d are allowed", resident, maxResident)
	}
}
