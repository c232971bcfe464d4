// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	emulation "portcullis/internal/emulator"
	"portcullis/internal/emulator/hostfs"
	"portcullis/internal/emulator/node"
	"portcullis/internal/emulator/shim"
	"portcullis/internal/generatetest"
	"portcullis/internal/genuine"
	"portcullis/internal/rulestest"
	"portcullis/rules/generate"
	"portcullis/rules/policydata"
	"portcullis/rules/settings"
)

// deployment is a way of running Kata: a platform, whose policy must allow the requests of either shim.
type deployment struct {
	platform string
	shim     shim.Config // but for its kind
}

var deployments = []deployment{
	{"peer-pods", shim.Config{GuestPull: true, PullMetadata: true}},
	{"non-coco", shim.Config{SharedFiles: true, EmptyDirs: shim.HostDirs, Network: true}},
}

// neededDropIns are what pods of a manifest need over the platform, by manifest or platform and manifest.
var neededDropIns = map[string]string{
	"static-pod.yaml":                    "static-pods",
	"peer-pods/accounts.yaml":            "force-guest-pull", // the lab's images are unpacked on the node
	"peer-pods/accounts-other-user.yaml": "force-guest-pull",
}

// pulledByTag are manifests that pin an image by digest, on nodes with another name of it. containerd 1.6 then names the image by
// the tag, and the guest would pull what the tag means: no policy allows that. docs/versions.md says what to do.
var pulledByTag = []string{"image-by-digest.yaml", "image-by-tag-and-digest.yaml"}

// deniesTag is true where the pod has to be denied.
func (d deployment) deniesTag(combination, manifest string) bool {
	return d.shim.GuestPull && strings.HasPrefix(combination, "containerd-1.6_") && slices.Contains(pulledByTag, manifest)
}

// settingsOf are those of the platform for a manifest, on the machine that recorded.
func (d deployment) settingsOf(t *testing.T, manifest string) *settings.Settings {
	t.Helper()
	machine, err := os.ReadFile(filepath.Join("testdata", "genuine", "machine.toml"))
	if err != nil {
		t.Fatal(err)
	}
	over := []settings.DropIn{{Name: "machine.toml", Text: machine}}
	for _, key := range []string{manifest, d.platform + "/" + manifest} {
		if neededDropIns[key] == "" {
			continue
		}
		named, err := settings.Named(neededDropIns[key])
		if err != nil {
			t.Fatal(err)
		}
		over = append(over, named)
	}
	s, err := settings.Load(d.platform, over...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Specifications that real kubelets and containerds made, turned into requests by what is known of Kata's shims, are allowed
// by the strict policy of the pod's manifest.
func TestGenuineSpecificationsAreAllowed(t *testing.T) {
	folder := filepath.Join("testdata", "genuine")
	combinations, err := genuine.Combinations(folder)
	if err != nil || len(combinations) == 0 {
		t.Fatalf("no recordings in %s (%v)", folder, err)
	}
	recorded := map[string]map[string][]genuine.Pod{} // by manifest and combination
	for name, file := range combinations {
		pods, err := genuine.Read(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pods {
			if recorded[p.Manifest] == nil {
				recorded[p.Manifest] = map[string][]genuine.Pod{}
			}
			recorded[p.Manifest][name] = append(recorded[p.Manifest][name], p)
		}
	}
	store := generatetest.Stored{Store: generatetest.Layout(t, filepath.Join(folder, "images.tar.gz"))}
	for manifest, pods := range recorded {
		for _, d := range deployments {
			t.Run(d.platform+"/"+strings.TrimSuffix(manifest, ".yaml"), func(t *testing.T) {
				t.Parallel()
				found := d.denials(t, filepath.Join(folder, "manifests", manifest), store, pods)
				if len(found) > 0 {
					t.Errorf("%d denied:\n%s", len(found), strings.Join(found, "\n"))
				}
			})
		}
	}
}

// denials are what the policy of a manifest denies of its pods' starts, under every combination and shim.
func (d deployment) denials(t *testing.T, manifest string, images generate.Images, recorded map[string][]genuine.Pod) []string {
	t.Helper()
	policies, _, err := generatetest.Policies(generatetest.Manifest(t, manifest), d.settingsOf(t, filepath.Base(manifest)), images)
	if err != nil {
		return []string{"no policy: " + err.Error()}
	}
	if len(policies) != 1 {
		t.Fatalf("%d policies of one manifest", len(policies))
	}
	j := judgeCompact(t, policies[0])
	var found []string
	played := map[string]bool{} // specifications, of which kubelets often make the same ones
	for combination, pods := range recorded {
		for _, p := range pods {
			text, err := json.Marshal(withoutCRI(p))
			if err != nil {
				t.Fatal(err)
			}
			// Nothing but the kubelet's own request tells such pods apart.
			if played[string(text)] {
				continue
			}
			played[string(text)] = true
			for _, kind := range []shim.Kind{shim.Go, shim.RuntimeRS} {
				reason := d.deny(t, j, policies[0], kind, p)
				if d.deniesTag(combination, filepath.Base(manifest)) {
					if !strings.Contains(reason, `"path":"storages[image_guest_pull].source"`) {
						t.Errorf("%s %s: an image that is pinned comes by its tag: %q", combination, p.Pod, reason)
					}
					continue
				}
				if reason != "" {
					found = append(found, fmt.Sprintf("%s, shim %s: %s: %s", combination, kind, p.Pod, reason))
				}
			}
		}
	}
	slices.Sort(found)
	return found
}

// withoutCRI leaves out what the shim does not see.
func withoutCRI(p genuine.Pod) genuine.Pod {
	p.Sandbox.CRI = nil
	p.Containers = slices.Clone(p.Containers)
	for i := range p.Containers {
		p.Containers[i].CRI = nil
	}
	return p
}

// deny plays a recorded pod's start from the initial state, and says what is denied first. Init containers end at once.
func (d deployment) deny(t *testing.T, j *rulestest.Judge, policy *policydata.Policy, kind shim.Kind, p genuine.Pod) string {
	t.Helper()
	ctx := context.Background()
	if err := j.SetState(ctx, map[string]any{}); err != nil {
		t.Fatal(err)
	}
	files, err := p.HostFiles()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range d.requests(kind, p, files) {
		kind, input, err := r.Input()
		if err != nil {
			t.Fatal(err)
		}
		asked := rulestest.Request{Kind: kind, Input: input}
		decision, err := j.Ask(ctx, asked)
		if err != nil {
			t.Fatal(err)
		}
		if !decision.Allowed {
			return fmt.Sprintf("%s of %q: %s", kind, r.Container, why(t, j, asked))
		}
		if err := j.Apply(ctx, decision.Ops); err != nil {
			t.Fatal(err)
		}
		if kind != "StartContainerRequest" || !awaited(policy, r.Container) {
			continue
		}
		ended := waited("", 0)
		ended.Input["request"] = map[string]any{"container_id": input["container_id"], "exec_id": ""}
		if _, err := j.Ask(ctx, ended); err != nil {
			t.Fatal(err)
		}
	}
	return ""
}

// awaited is true for a container that others wait for until it has succeeded.
func awaited(p *policydata.Policy, name string) bool {
	for _, c := range p.Containers {
		if slices.Contains(c.After, policydata.After{Container: name, State: policydata.Succeeded}) {
			return true
		}
	}
	return false
}

// requests are those of the pod's start, its probes and hooks.
func (d deployment) requests(kind shim.Kind, p genuine.Pod, files hostfs.FS) []emulation.Request {
	config := d.shim
	config.Kind = kind
	s := shim.New(config, files, node.NewRandom(1))
	var out []emulation.Request
	add := func(container string, messages ...proto.Message) {
		for _, m := range messages {
			out = append(out, emulation.Request{Container: container, Message: m})
		}
	}
	n := node.Default(1)
	network := shim.Interface{IP: n.PodIP, LinkLocal: n.PodLinkLocal, MAC: n.PodMAC, Gateway: n.Gateway}
	add("", s.CreateSandbox(p.Sandbox.ID, p.Sandbox.Spec, resolv(p.Sandbox, files), network)...)
	for _, c := range append([]genuine.Container{p.Sandbox}, p.Containers...) {
		add(c.Name, s.CreateContainer(c.ID, bundle(c.ID), c.Spec)...)
		add(c.Name, s.StartContainer(c.ID))
		for _, e := range c.Execs {
			add(c.Name, s.Exec(c.ID, s.ExecID(), e.Process))
		}
	}
	return out
}

func bundle(id string) string {
	return path.Join("/run/containerd/io.containerd.runtime.v2.task/k8s.io", id)
}

// resolv are the lines of the sandbox's resolv.conf.
func resolv(c genuine.Container, files hostfs.FS) []string {
	for _, m := range c.Spec.Mounts {
		if m.Destination == "/etc/resolv.conf" {
			return strings.Split(string(files[m.Source].Data), "\n")
		}
	}
	return nil
}
