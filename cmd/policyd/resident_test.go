// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"portcullis/agentproto/agentpb"
)

// maxResident is what policyd may have in memory after the demo's pod, in bytes.
const maxResident = 28_000_000

// maxPeak is what it may have at any time, whatever the host sends, in bytes.
const maxPeak = 48_000_000

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

// Megabytes that pass through are not allocated again each time: the collector has little to do.
func TestBytesPassThroughWithoutCollections(t *testing.T) {
	t.Setenv("GODEBUG", "gctrace=1")
	p := startProcess(t, setPolicyOnly)
	p.must("SetPolicy", &agentpb.SetPolicyRequest{Policy: "package agent_policy\n\ndefault WriteStreamRequest := true\n"})
	client := p.dial()
	defer client.Close()
	time.Sleep(time.Second) // the held rules are compiled
	before := strings.Count(p.stderr.String(), "\ngc ")
	for range 400 {
		if err := p.callOn(client, "WriteStdin", &agentpb.WriteStreamRequest{ContainerId: "x", Data: make([]byte, 512<<10)}); status.Code(err) == codes.PermissionDenied {
			t.Fatal(err)
		}
	}
	collections := strings.Count(p.stderr.String(), "\ngc ") - before
	t.Logf("%d collections in 400 calls", collections)
	if collections > 40 {
		t.Errorf("%d collections in 400 calls", collections)
	}
}
