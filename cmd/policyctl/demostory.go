// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"portcullis/agentproto/agentpb"
	"portcullis/internal/agenttest"
)

// Images of the demo's pod.
const (
	pauseImage = "registry.example/pause@sha256:aaaa"
	shopImage  = "registry.example/shop@sha256:bbbb"
)

// demoPrograms run in the fake agent's containers.
var demoPrograms = map[string]agenttest.Program{
	"shop": func(ctx context.Context, p agenttest.Process) int32 {
		fmt.Fprintln(p.Stdout, "the shop is open")
		return agenttest.Pause(ctx, p)
	},
	"probe": agenttest.Exit(0),
}

// demoSteps is a pod's life, and what a hostile host would try in between.
func demoSteps() []step {
	app := demoContainer("app", shopImage, "/bin/shop")
	return []step{
		{chapter: "Before there is a policy nothing runs", what: "create the sandbox", method: "CreateSandbox", request: demoSandbox(), deny: true},
		{what: "a policy that does not compile", method: "SetPolicy", request: &agentpb.SetPolicyRequest{Policy: "package agent_policy\n\nx := }\n"}, deny: true},
		{what: "the owner's policy", method: "SetPolicy", request: &agentpb.SetPolicyRequest{Policy: demoPolicy}},
		{what: "the same policy again", method: "SetPolicy", request: &agentpb.SetPolicyRequest{Policy: demoPolicy}},
		{what: "another policy", method: "SetPolicy", request: &agentpb.SetPolicyRequest{Policy: demoPolicy + "\ndefault AddSwapRequest := true\n"}, deny: true},

		{chapter: "The pod starts", what: "ask about the guest", method: "GetGuestDetails", request: &agentpb.GuestDetailsRequest{}},
		{what: "create the sandbox", method: "CreateSandbox", request: demoSandbox()},
		{what: "create a second sandbox", method: "CreateSandbox", request: demoSandbox(), deny: true},
		{what: "pause container", method: "CreateContainer", request: demoContainer("pause", pauseImage, "/pause")},
		{what: "start it", method: "StartContainer", request: &agentpb.StartContainerRequest{ContainerId: "pause-1"}},
		{what: "init container", method: "CreateContainer", request: demoContainer("init", shopImage, "/bin/migrate", "--once")},
		{what: "start it", method: "StartContainer", request: &agentpb.StartContainerRequest{ContainerId: "init-1"}},
		{what: "wait for it to end", method: "WaitProcess", request: &agentpb.WaitProcessRequest{ContainerId: "init-1"}},

		{chapter: "What a hostile host tries", what: "a container of its own", method: "CreateContainer", request: demoContainer("miner", "registry.example/miner:latest", "/bin/mine"), deny: true},
		{what: "a foreign image under a known name", method: "CreateContainer", request: demoContainer("app", "registry.example/evil@sha256:cccc", "/bin/shop"), deny: true},
		{what: "other arguments", method: "CreateContainer", request: demoContainer("app", shopImage, "/bin/sh", "-c", "cat /secrets/*"), deny: true},
		{what: "another environment", method: "CreateContainer", request: demoWithEnv(demoContainer("app", shopImage, "/bin/shop"), "DB=attacker.example"), deny: true},
		{what: "the gate's own directory as a mount", method: "CreateContainer", request: demoMount(app, "/run/portcullis"), deny: true},
		{what: "a file outside the shared directory", method: "CopyFile", request: demoFile("/run/kata-containers/shared/containers/../../../../etc/passwd"), deny: true},
		{what: "more swap", method: "AddSwap", request: &agentpb.AddSwapRequest{PCIPath: []uint32{1}}, deny: true},
		{what: "another time of day", method: "SetGuestDateTime", request: &agentpb.SetGuestDateTimeRequest{Sec: 1}, deny: true},

		{chapter: "The application runs", what: "a file of a ConfigMap", method: "CopyFile", request: demoFile("/run/kata-containers/shared/containers/app-1-0123456789abcdef-config/key")},
		{what: "the application", method: "CreateContainer", request: app},
		{what: "start it", method: "StartContainer", request: &agentpb.StartContainerRequest{ContainerId: "app-1"}},

		{what: "the application a second time", method: "CreateContainer", request: demoRenamed(app, "app-2"), deny: true},
		{what: "a shell in the application", method: "ExecProcess", request: demoExec("app-1", true, "/bin/sh"), deny: true},
		{what: "liveness probe", method: "ExecProcess", request: demoExec("app-1", false, "/bin/probe", "--live")},
		{what: "statistics", method: "StatsContainer", request: &agentpb.StatsContainerRequest{ContainerId: "app-1"}},
		{what: "statistics, again (from the cache)", method: "StatsContainer", request: &agentpb.StatsContainerRequest{ContainerId: "app-1"}},
		{what: "its log", method: "ReadStdout", request: &agentpb.ReadStreamRequest{ContainerId: "app-1", Len: 4096}},
		{what: "write to the application's input", method: "WriteStdin", request: &agentpb.WriteStreamRequest{ContainerId: "app-1", Data: []byte("hello\n")}, deny: true},

		{chapter: "The pod ends", what: "stop the application", method: "SignalProcess", request: &agentpb.SignalProcessRequest{ContainerId: "app-1", Signal: 15}},
		{what: "wait for it to end", method: "WaitProcess", request: &agentpb.WaitProcessRequest{ContainerId: "app-1"}},
		{what: "remove it", method: "RemoveContainer", request: &agentpb.RemoveContainerRequest{ContainerId: "app-1"}},
		{what: "remove what never was", method: "RemoveContainer", request: &agentpb.RemoveContainerRequest{ContainerId: "names"}, deny: true},
		{what: "destroy the sandbox", method: "DestroySandbox", request: &agentpb.DestroySandboxRequest{}},
	}
}

func demoSandbox() *agentpb.CreateSandboxRequest {
	return &agentpb.CreateSandboxRequest{SandboxId: "demo", Hostname: "shop"}
}

func demoContainer(name, image string, args ...string) *agentpb.CreateContainerRequest {
	id := name + "-1"
	var env []string
	if name != "pause" {
		env = []string{"DB=db.svc"}
	}
	return &agentpb.CreateContainerRequest{
		ContainerId: id,
		OCI: &agentpb.Spec{
			Version:     "1.1.0",
			Process:     &agentpb.Process{Args: args, Env: env, Cwd: "/"},
			Root:        &agentpb.Root{Path: fmt.Sprintf("/run/kata-containers/%s/rootfs", id), Readonly: true},
			Annotations: map[string]string{"io.kubernetes.cri.container-name": name, "io.kubernetes.cri.image-name": image},
		},
	}
}

func demoRenamed(r *agentpb.CreateContainerRequest, id string) *agentpb.CreateContainerRequest {
	r = proto.CloneOf(r)
	r.OCI.Root.Path = strings.Replace(r.OCI.Root.Path, r.ContainerId, id, 1)
	r.ContainerId = id
	return r
}

func demoWithEnv(r *agentpb.CreateContainerRequest, env ...string) *agentpb.CreateContainerRequest {
	r.OCI.Process.Env = env
	return r
}

func demoMount(r *agentpb.CreateContainerRequest, source string) *agentpb.CreateContainerRequest {
	r = demoRenamed(r, "app-3")
	r.OCI.Mounts = []*agentpb.Mount{{Destination: "/mnt", Source: source, Type: "bind", Options: []string{"rbind"}}}
	return r
}

func demoExec(id string, terminal bool, args ...string) *agentpb.ExecProcessRequest {
	return &agentpb.ExecProcessRequest{ContainerId: id, ExecId: "exec", Process: &agentpb.Process{Args: args, Terminal: terminal, Cwd: "/"}}
}

func demoFile(path string) *agentpb.CopyFileRequest {
	data := []byte("color = blue\n")
	return &agentpb.CopyFileRequest{Path: path, FileMode: 0o100644, DirMode: 0o755, FileSize: int64(len(data)), Data: data}
}

// shorten drops what every denial begins with, and fits the rest into a terminal's line.
func shorten(message string) string {
	if _, reason, ok := strings.Cut(message, " is blocked by policy: "); ok {
		message = reason
	}
	message = strings.TrimPrefix(message, "SetPolicyRequest is refused: ")
	if runes := []rune(message); len(runes) > 100 {
		message = string(runes[:99]) + "…"
	}
	return message
}
