// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"portcullis/internal/rulestest"
	"portcullis/rules/policydata"
)

// An argument or variable $(UID) of the manifest could become an option: a uid is one, or nothing.
func TestIDsAreHexadecimalAndUIDsAreUIDs(t *testing.T) {
	p := newPod(t, richPod(t))
	letters := strings.Repeat("g", 64)
	annotated := func(key, value string) rulestest.Request {
		return p.create(sandbox, func(_, oci, _ map[string]any) {
			annotations := oci["Annotations"].(map[string]any)
			delete(annotations, "io.kubernetes.cri.sandbox-log-directory")
			annotations[key] = value
		})
	}
	p.denied(annotated("io.kubernetes.cri.sandbox-id", letters), "identity")
	for _, uid := range []string{"-", "---", "-f", "9c64c5bf", "9c64c5bf-298f-46c4-ad63-e2270a2ff44g", "9c64c5bf-298f-46c4-ad63-e2270a2ff44c-"} {
		p.denied(annotated("io.kubernetes.cri.sandbox-uid", uid), "identity")
	}
	for _, uid := range []string{"", "9c64c5bf-298f-46c4-ad63-e2270a2ff44c", "9c64c5bf298f46c4ad63e2270a2ff44c"} {
		p := newPod(t, richPod(t))
		p.emulator.Pod.UID = uid
		p.allowed(p.emulator.CreateContainer(sandbox))
	}
	made := newPod(t, richPod(t)).emulator.CreateSandbox()
	made.Input["sandbox_id"] = letters
	(&pod{t, p.emulator, judgeCompact(t, richPod(t))}).denied(made, "id")
}

func TestNoContainerOutsideItsSandbox(t *testing.T) {
	policy := richPod(t)
	p := &pod{t, emulator(policy), judgeCompact(t, policy)}
	p.denied(p.emulator.CreateContainer(sandbox), "sandbox")
	other := p.emulator.CreateSandbox()
	other.Input["sandbox_id"] = rulestest.ID("other")
	p.allowed(other)
	p.denied(p.emulator.CreateContainer(sandbox), "sandbox")
}

func TestRequestsGoToContainersThatRun(t *testing.T) {
	policy := richPod(t)
	policy.Requests.ReadStream, policy.Requests.WriteStream = true, true
	p := newPod(t, policy)
	exec := func() rulestest.Request { return p.emulator.ExecProcess("web", []string{"true"}) }
	streams := []string{"StatsContainerRequest", "TtyWinResizeRequest", "ReadStreamRequest", "WriteStreamRequest", "CloseStdinRequest"}
	notStarted := func() {
		t.Helper()
		p.denied(exec(), "container")
		for _, kind := range streams {
			p.denied(lifecycle(kind, "web"), "")
		}
	}
	p.allowed(p.emulator.CreateContainer("web"))
	notStarted()
	p.allowed(lifecycle("StartContainerRequest", "web"))
	p.allowed(exec())
	p.allowed(waited("web", 1))
	p.denied(exec(), "container")
	for _, kind := range streams { // what it wrote last is still to be read
		p.allowed(lifecycle(kind, "web"))
	}
	p.allowed(lifecycle("RemoveContainerRequest", "web"))
	p.allowed(p.emulator.CreateContainer("web"))
	notStarted()
}

// One that was removed does not run, nor does the next of its name before it is started.
func TestNoContainerBesideOneThatWasRemoved(t *testing.T) {
	p := newPod(t, richPod(t, "ordered"), sandbox)
	p.allowed(lifecycle("RemoveContainerRequest", sandbox))
	p.denied(p.emulator.CreateContainer("init-db"), "order")
	p.allowed(p.emulator.CreateContainer(sandbox))
	p.denied(p.emulator.CreateContainer("init-db"), "order")
	p.allowed(lifecycle("StartContainerRequest", sandbox))
	p.allowed(p.emulator.CreateContainer("init-db"))
}

// A volume that two containers have is one device, and a device one volume, as long as the agent has them.
func TestADeviceIsOneVolumeInEveryContainer(t *testing.T) {
	policy := richPod(t)
	web, twin := policy.Containers["web"], *policy.Containers["init-cache"]
	twin.Mounts = maps.Clone(twin.Mounts)
	twin.Mounts["/data"], twin.Mounts["/scratch"], twin.Storages = web.Mounts["/data"], web.Mounts["/scratch"], web.Storages
	policy.Containers["init-cache"] = &twin
	exchanged := func(p *pod, swap bool) rulestest.Request {
		return p.create("init-cache", func(_, oci, in map[string]any) {
			var points []any
			for _, s := range in["storages"].([]any) {
				if s := s.(map[string]any); s["driver"] == "blk" {
					points = append(points, s["mount_point"])
				}
			}
			for _, m := range oci["Mounts"].([]any) {
				m := m.(map[string]any)
				if i := slices.Index(points, m["source"]); i >= 0 && swap {
					m["source"] = points[1-i]
				}
			}
		})
	}
	p := newPod(t, policy, sandbox, "web")
	first := map[any]any{}
	for _, m := range p.emulator.CreateContainer("web").Input["OCI"].(map[string]any)["Mounts"].([]any) {
		first[m.(map[string]any)["destination"]] = m.(map[string]any)["source"]
	}
	same := false
	for _, m := range exchanged(p, false).Input["OCI"].(map[string]any)["Mounts"].([]any) {
		m := m.(map[string]any)
		same = same || m["destination"] == "/data" && m["source"] == first["/data"]
	}
	p.denied(exchanged(p, same), "mounts")
	p.allowed(exchanged(p, !same))
	p = newPod(t, policy, sandbox, "web")
	p.allowed(lifecycle("RemoveContainerRequest", "web")) // the agent keeps the storage of one that is shared
	p.denied(exchanged(p, same), "mounts")
	p.allowed(exchanged(p, !same))
	for _, c := range []*policydata.Container{web, &twin} {
		c.Storages = slices.Clone(c.Storages)
		for i := range c.Storages {
			c.Storages[i].Shared = c.Storages[i].Shared && c.Storages[i].Driver != "$(block)"
		}
	}
	p = newPod(t, policy, sandbox, "web")
	p.denied(exchanged(p, same), "mounts")
	p.allowed(lifecycle("RemoveContainerRequest", "web"))
	p.allowed(exchanged(p, same))
}

// A mount over another would hide what the policy has there.
func TestNoMountAfterOneBelowIt(t *testing.T) {
	policy := richPod(t)
	p := newPod(t, policy, sandbox)
	moved := func(destination string, to int) rulestest.Request {
		return p.create("web", func(_, oci, _ map[string]any) {
			mounts := oci["Mounts"].([]any)
			i := slices.IndexFunc(mounts, func(m any) bool { return m.(map[string]any)["destination"] == destination })
			m := mounts[i]
			mounts = slices.Delete(mounts, i, i+1)
			oci["Mounts"] = slices.Insert(mounts, min(to, len(mounts)), m)
		})
	}
	p.denied(moved("/dev", 99), "mounts")
	p.allowed(moved("/proc", 99))
	p.denied(moved("/sys", 99), "mounts")
}
