// SPDX-License-Identifier: Apache-2.0

// Package emulatortest makes the requests of manifests for tests of policies.
package emulatortest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"portcullis/images"
	"portcullis/internal/emulator"
	"portcullis/internal/emulator/containerd"
	"portcullis/internal/emulator/controller"
	"portcullis/internal/emulator/node"
	"portcullis/internal/emulator/shim"
	"portcullis/internal/rulestest"
)

// Pod is an emulated pod.
type Pod struct {
	*emulator.Pod
	Requests []rulestest.Request // its life
}

// Options are those of the platform: containerd 2.4 and the Go shim, images in the
// guest's hands, and a node with the cluster's services.
func Options(tb testing.TB, platform string, store images.Store) emulator.Options {
	tb.Helper()
	config, err := emulator.Platform(platform, shim.Go)
	if err != nil {
		tb.Fatal(err)
	}
	n := node.Default(1)
	n.Unknown = func(string, string) map[string][]byte {
		return map[string][]byte{node.EveryKey: []byte("of the cluster"), "key": []byte("of the cluster")}
	}
	return emulator.Options{
		Node: n, Containerd: containerd.V2_4, Shim: config, Images: StandIns{store},
		HostImages: !config.GuestPull, Pause: "registry.k8s.io/pause:3.10",
	}
}

// Emulates is true for a platform whose pods can be emulated.
func Emulates(platform string) bool { return slices.Contains(emulator.Platforms(), platform) }

// Pods emulates the first pod of each workload of a manifest from start to end.
func Pods(tb testing.TB, manifest []byte, o emulator.Options) []Pod {
	tb.Helper()
	m, err := controller.Decode(manifest)
	if errors.Is(err, controller.ErrNoPod) {
		return nil
	}
	if err != nil {
		tb.Fatal(err)
	}
	var out []Pod
	for at := range m.Names() {
		pod, err := emulator.New(context.Background(), m, at, o)
		if err != nil {
			tb.Fatal(err)
		}
		life, err := pod.Life()
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, Pod{pod, withAnswers(Inputs(tb, life))})
	}
	return out
}

// Answer is what the gate tells a policy when the agent has answered a WaitProcess.
const Answer = "WaitProcessResponse"

// withAnswers puts behind the first wait for each container's process what the agent answers: it ended by itself, well.
func withAnswers(life []rulestest.Request) (out []rulestest.Request) {
	ends := map[string]bool{} // containers but the sandbox's, and whether they have not ended
	for _, r := range life {
		out = append(out, r)
		id, _ := r.Input["container_id"].(string)
		switch exec := r.Input["exec_id"]; r.Kind {
		case "CreateContainerRequest":
			annotations := r.Input["OCI"].(map[string]any)["Annotations"].(map[string]any)
			ends[id] = annotations["io.kubernetes.cri.container-name"] != nil
		case "WaitProcessRequest":
			if ends[id] && (exec == "" || exec == id) {
				ends[id] = false
				out = append(out, rulestest.Request{Kind: Answer, Input: map[string]any{
					"request": r.Input, "response": map[string]any{"status": 0},
				}})
			}
		}
	}
	return out
}

// Inputs are requests as policies see them.
func Inputs(tb testing.TB, life []emulator.Request) []rulestest.Request {
	tb.Helper()
	var out []rulestest.Request
	for _, r := range life {
		kind, input, err := r.Input()
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, rulestest.Request{Kind: kind, Input: input})
	}
	return out
}

// Optional is true for what a pod runs without: its output, its counters, the end of
// a process that has ended. Policies may deny it.
func Optional(r rulestest.Request) bool {
	return emulator.Optional(r.Kind)
}

// Denied asks for each request of a pod's life that it needs, and returns the first that is denied.
func Denied(tb testing.TB, judge *rulestest.Judge, requests []rulestest.Request) *rulestest.Request {
	tb.Helper()
	for _, r := range requests {
		if Optional(r) {
			continue
		}
		d, err := judge.Ask(context.Background(), r)
		if err != nil {
			tb.Fatal(err)
		}
		if !d.Allowed && r.Kind != Answer {
			return &r
		}
	}
	return nil
}

// StandIns finds images by name and tag, as a stand-in cannot have the digest of the real image.
type StandIns struct{ Store images.Store }

// Image returns the configuration of the stand-in.
func (s StandIns) Image(ctx context.Context, name string, withAccounts bool) (images.Config, *images.Accounts, error) {
	name, _, _ = strings.Cut(name, "@")
	return emulator.Stores{s.Store}.Image(ctx, name, withAccounts)
}
