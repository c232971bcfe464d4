// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto"
	"portcullis/agentproto/agentpb"
	"portcullis/internal/generatetest"
	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/policydata"
)

// orderedPod is a pod under the shipped rules that enforce its order, behind a gate.
type orderedPod struct {
	*client
	rig *rig
	rulestest.Emulator
}

func newOrderedPod(t *testing.T) orderedPod {
	t.Helper()
	const of = "../../rules/generate/testdata/"
	made, _, err := generatetest.Policies(generatetest.Manifest(t, of+"pods/init-chain.yaml"),
		generatetest.Settings(t, "guest-pull", "ordered"), generatetest.Images(t, of+"images.json"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := made[0].Full(rules.Text())
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, rigOptions{policy: string(text)})
	p := orderedPod{r.client(), r, rulestest.Emulator{Policy: made[0], Pod: rulestest.DefaultPod(made[0])}}
	p.must("CreateSandbox", p.message(p.CreateSandbox(), "", ""))
	return p
}

// message is a request as it is sent, with another id in the place of a container's own.
func (p orderedPod) message(r rulestest.Request, from, to string) proto.Message {
	p.t.Helper()
	raw, err := json.Marshal(r.Input)
	if err != nil {
		p.t.Fatal(err)
	}
	kind, ok := agentproto.MessageByName(r.Kind)
	if !ok {
		p.t.Fatalf("no message %s", r.Kind)
	}
	m, err := agentproto.FromInput(kind, bytes.ReplaceAll(raw, []byte(from), []byte(to)))
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

// create is the request for a container, by another id the second time.
func (p orderedPod) create(name, id string) proto.Message {
	return p.message(p.CreateContainer(name), rulestest.ID(name), id)
}

func (p orderedPod) early(names ...string) {
	p.t.Helper()
	for _, name := range names {
		p.fails(codes.PermissionDenied, "CreateContainer", p.create(name, rulestest.ID("early "+name)))
	}
}

func (p orderedPod) run(name, id string) {
	p.t.Helper()
	p.must("CreateContainer", p.create(name, id))
	p.must("StartContainer", &agentpb.StartContainerRequest{ContainerId: id})
}

// ends is a process that ends, and the shim that has waited for it.
func (p orderedPod) ends(id string, code int32) {
	p.t.Helper()
	if err := p.rig.agent.Exit(id, "", code); err != nil {
		p.t.Fatal(err)
	}
	p.must("WaitProcess", &agentpb.WaitProcessRequest{ContainerId: id})
}

// The shipped rules know from the gate how an init container ended: a pod whose order is enforced starts, and none of its
// containers comes before its time.
func TestOrderedPodsStartBehindTheGate(t *testing.T) {
	p := newOrderedPod(t)
	id := rulestest.ID
	p.early("fetch", "proxy", "migrate", "app")
	p.run(policydata.SandboxContainer, id(policydata.SandboxContainer))
	p.early("proxy", "migrate", "app")
	p.run("fetch", id("fetch"))
	p.early("proxy", "migrate", "app")
	p.ends(id("fetch"), 0)
	p.must("RemoveContainer", &agentpb.RemoveContainerRequest{ContainerId: id("fetch")})
	p.early("fetch", "migrate", "app")
	p.run("proxy", id("proxy"))
	p.early("app", "metrics")
	p.run("migrate", id("migrate"))
	p.ends(id("migrate"), 1)
	p.early("app", "metrics")
	p.must("RemoveContainer", &agentpb.RemoveContainerRequest{ContainerId: id("migrate")})
	p.run("migrate", id("migrate again"))
	p.ends(id("migrate again"), 0)
	p.run("app", id("app"))
	p.run("metrics", id("metrics"))
}
