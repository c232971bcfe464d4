// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"context"
	"testing"

	"portcullis/internal/rulestest"
)

func TestSandboxOnce(t *testing.T) {
	p := newPod(t, richPod(t)) // which asks for it
	p.denied(p.emulator.CreateSandbox(), "once")
}

func TestLifecycleNeedsAContainer(t *testing.T) {
	p := newPod(t, richPod(t), sandbox)
	kinds := []string{"StartContainerRequest", "SignalProcessRequest", "WaitProcessRequest", "StatsContainerRequest", "TtyWinResizeRequest", "RemoveContainerRequest"}
	for _, kind := range kinds {
		p.denied(lifecycle(kind, "web"), "")
	}
	p.allowed(p.emulator.CreateContainer("web"))
	for _, kind := range kinds { // it is started first
		p.allowed(lifecycle(kind, "web"))
	}
	p.denied(lifecycle("SignalProcessRequest", "web"), "")
}

// Ids that the host chooses never name another key of the state.
func TestIdsAddressNothingElse(t *testing.T) {
	p := newPod(t, richPod(t), sandbox)
	before := state(t, p.judge)
	for _, id := range []string{"pod", "../pod", "x/../../pod", "~1pod", "container:", "running:$sandbox", "", "$sandbox", "a/b", "a~b"} {
		p.denied(rulestest.Request{Kind: "RemoveContainerRequest", Input: map[string]any{"container_id": id, "timeout": 0}}, "")
		if id != "pod" { // an id like any other, of which the state says container:pod
			p.denied(rewrite(p.emulator.CreateContainer("web"), rulestest.ID("web"), id), "id")
		}
	}
	if after := state(t, p.judge); len(after) != len(before) {
		t.Errorf("state changed from %v to %v", before, after)
	}
}

func TestRemoveFreesOnlyWhatWasCreated(t *testing.T) {
	p := newPod(t, richPod(t), sandbox, "init-db", "web")
	p.allowed(lifecycle("RemoveContainerRequest", "web"))
	got := state(t, p.judge)
	for _, key := range []string{"pod", "running:init-db", "started:web", "container:" + rulestest.ID("init-db")} {
		if _, ok := got[key]; !ok {
			t.Errorf("%s is gone", key)
		}
	}
	for _, key := range []string{"running:web", "container:" + rulestest.ID("web")} {
		if _, ok := got[key]; ok {
			t.Errorf("%s is still there", key)
		}
	}
}

func TestContainersAreOfOnePod(t *testing.T) {
	p := newPod(t, richPod(t), sandbox)
	for key, other := range map[string]string{
		"io.kubernetes.cri.sandbox-name": "shop-cccccccc-bbbbb", "io.kubernetes.cri.sandbox-uid": "aaaaaaaa-298f-46c4-ad63-e2270a2ff44c",
		"io.kubernetes.cri.sandbox-id": rulestest.ID("other"),
	} {
		p.denied(p.create("init-db", func(_, oci, _ map[string]any) { oci["Annotations"].(map[string]any)[key] = other }), "pod")
	}
	p.denied(p.create("init-db", func(_, oci, _ map[string]any) {
		oci["Linux"].(map[string]any)["Namespaces"] = append(oci["Linux"].(map[string]any)["Namespaces"].([]any), map[string]any{"Type": "network", "Path": "/run/netns/x"})
	}), "pod")
}

func TestContainerIDIsTheRootPaths(t *testing.T) {
	p := newPod(t, richPod(t), sandbox)
	p.denied(p.create("web", func(_, _, in map[string]any) { in["container_id"] = rulestest.ID("other") }), "id")
	p.denied(p.create("web", func(_, oci, _ map[string]any) {
		oci["Root"].(map[string]any)["Path"] = "/run/kata-containers/shared/containers/x/run/kata-containers/" + rulestest.ID("web") + "/rootfs"
	}), "id")
}

func TestTwoVolumesAreTwoStorages(t *testing.T) {
	p := newPod(t, richPod(t), sandbox)
	p.denied(p.create("web", func(_, oci, in map[string]any) {
		var points []any
		for _, s := range in["storages"].([]any) {
			if s := s.(map[string]any); s["driver"] == "blk" {
				points = append(points, s["mount_point"])
			}
		}
		for _, m := range oci["Mounts"].([]any) {
			if m := m.(map[string]any); m["source"] == points[1] {
				m["source"] = points[0]
			}
		}
	}), "mounts")
}

func TestPodCompleteNeedsEveryContainer(t *testing.T) {
	p := newPod(t, onePod(t), sandbox)
	complete := func() any {
		v, err := p.judge.Eval(context.Background(), "pod_complete", value(t, rulestest.Request{Input: map[string]any{}}))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	p.allowed(p.emulator.CreateContainer("web"))
	if complete() != false {
		t.Error("complete before the last container was started")
	}
	p.allowed(lifecycle("StartContainerRequest", "web"))
	if complete() != true {
		t.Error("not complete after all containers were started")
	}
}

func state(t *testing.T, j *rulestest.Judge) map[string]any {
	t.Helper()
	s, err := j.State(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A shared file's name alone, without the directory and the container's id, is not a shared file.
func TestSharedFilesAreTheContainersOwn(t *testing.T) {
	p := newPod(t, richPod(t), sandbox)
	own := "/run/kata-containers/shared/containers/" + rulestest.ID("web") + "-"
	for _, source := range []string{
		"0123456789abcdef-hosts", "/0123456789abcdef-hosts", "", own + "-hosts", own + "0123456789abcdef-hosts/x", own + "0123456789abcde/-hosts",
		own + "0123456789abcdef-hosts\n", "/run/kata-containers/shared/containers/" + rulestest.ID("other") + "-0123456789abcdef-hosts", own + own + "0123456789abcdef-hosts",
	} {
		p.denied(p.create("web", func(_, oci, _ map[string]any) {
			for _, m := range oci["Mounts"].([]any) {
				if m := m.(map[string]any); m["destination"] == "/etc/hosts" {
					m["source"] = source
				}
			}
		}), "mounts")
	}
}
