// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"context"
	"encoding/json"
	"testing"

	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/policydata"
)

// upstreamShape writes a policy as upstream's genpolicy would: a list of
// containers in the request's own shape, with its placeholders.
func upstreamShape(p *policydata.Policy) map[string]any {
	var containers []any
	for _, name := range []string{sandbox, "web"} {
		c := p.Containers[name]
		annotations := map[string]any{
			"io.kubernetes.cri.sandbox-name": p.Sandbox.Name, "io.kubernetes.cri.sandbox-namespace": p.Sandbox.Namespace,
			"io.kubernetes.cri.sandbox-id": "^[a-z0-9]{64}$", "io.kubernetes.cri.container-type": string(c.Type),
			"io.katacontainers.pkg.oci.container_type": "pod_" + string(c.Type), "nerdctl/network-namespace": "^(?:/var/run/netns/cni.*)?$",
			"io.katacontainers.pkg.oci.bundle_path": "/run/containerd/io.containerd.runtime.v2.task/k8s.io/$(bundle-id)",
		}
		if name != sandbox {
			annotations["io.kubernetes.cri.container-name"] = name
		}
		var mounts []any
		for _, m := range p.Common.Mounts[c.BaseMounts] {
			mounts = append(mounts, m)
		}
		for destination, m := range c.Mounts {
			source := m.Source
			if m.From == policydata.MountShared {
				source = "$(sfprefix)" + source + "$"
			}
			mounts = append(mounts, policydata.ExactMount{Destination: destination, Options: m.Options, Source: source, Type: m.Type})
		}
		defaultCaps := []string{"$(default_caps)"}
		containers = append(containers, map[string]any{
			"OCI": map[string]any{
				"Version": "1.1.0", "Root": map[string]any{"Path": "$(root_path)", "Readonly": c.ReadonlyRoot}, "Mounts": mounts, "Annotations": annotations,
				"Process": map[string]any{"Terminal": false, "User": c.OCI.Process.User, "Args": c.Args, "Cwd": c.Cwd, "NoNewPrivileges": c.NoNewPrivs,
					"Env":          append([]string{"HOSTNAME=$(host-name)", "POD=$(sandbox-name)"}, c.Env.Fixed...),
					"Capabilities": map[string]any{"Ambient": []string{}, "Bounding": defaultCaps, "Effective": defaultCaps, "Inheritable": []string{}, "Permitted": defaultCaps}},
				"Linux": map[string]any{"Namespaces": []any{map[string]any{"Type": "ipc", "Path": ""}, map[string]any{"Type": "uts", "Path": ""}, map[string]any{"Type": "mount", "Path": ""}},
					"MaskedPaths": p.Common.Paths["default"].Masked, "ReadonlyPaths": p.Common.Paths["default"].Readonly, "Devices": []any{}},
			},
			"storages": []any{}, "devices": []any{}, "sandbox_pidns": false, "exec_commands": [][]string{{"true"}},
			"runtime_anno_patterns": map[string]any{"^io\\.kubernetes\\.container\\.terminationMessagePath$": "^/.*$"},
		})
	}
	return map[string]any{
		"containers": containers, "sandbox": map[string]any{"storages": []any{}},
		"common": map[string]any{"cpath": "/run/kata-containers/shared/containers(?:/passthrough)?", "root_path": "/run/kata-containers/$(bundle-id)/rootfs",
			"sfprefix": "^$(cpath)/(watchable/)?$(bundle-id)-[a-z0-9]{16}-", "spath": "/run/kata-containers/sandbox/storage",
			"ipv4_a": "(?:[0-9]{1,3}\\.){3}[0-9]{1,3}", "ip_p": "[0-9]{1,5}", "svc_name_downward_env": "[A-Z](?:[A-Z0-9_]{0,61}[A-Z0-9])?", "dns_label": "[a-zA-Z0-9_\\.\\-]+",
			"default_caps": p.Common.Capabilities["default"].Bounding, "privileged_caps": []string{}},
		"request_defaults": map[string]any{
			"CreateContainerRequest": map[string]any{"allow_env_regex": []string{"^$(svc_name_downward_env)_SERVICE_HOST=$(ipv4_a)$"}},
			"CopyFileRequest":        []string{"$(sfprefix)"}, "ExecProcessRequest": map[string]any{"allowed_commands": [][]string{{"ls"}}, "regex": []string{}},
			"UpdateRoutesRequest":    map[string]any{"forbidden_device_names": []string{"lo"}, "forbidden_source_regex": []string{"^127\\..*$"}},
			"UpdateInterfaceRequest": map[string]any{"allow_raw_flags": 128, "forbidden_names": []string{"lo"}, "forbidden_hw_addrs": []string{}},
			"AddARPNeighborsRequest": map[string]any{"forbidden_device_names": []string{"lo"}, "forbidden_cidrs_regex": []string{}, "allowed_states": []int{128}},
			"CloseStdinRequest":      false, "ReadStreamRequest": true, "UpdateEphemeralMountsRequest": false, "WriteStreamRequest": false,
		},
		"devices":        map[string]any{"vfio": map[string]any{"device_path": "/dev/vfio/devices/vfio", "nvidia": map[string]any{}}},
		"cluster_config": map[string]any{"pause_container_image": "pause", "guest_pull": true, "emptydir_type": "block-encrypted", "cgroup_mount_extras_allowed": []string{"nsdelegate"}},
	}
}

func judgeUpstream(t *testing.T, p *policydata.Policy) *rulestest.Judge {
	t.Helper()
	j, err := rulestest.New(upstreamPolicy(t, p), nil, rules.Reasons())
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// upstreamPolicy is what upstream's genpolicy writes when it is given our rules.
func upstreamPolicy(t *testing.T, p *policydata.Policy) string {
	t.Helper()
	data, err := json.MarshalIndent(upstreamShape(p), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return rules.UpstreamText() + "\npolicy_data := " + string(data) + "\n"
}

// upstreamPod is a pod without what upstream's shape cannot say.
func upstreamPod(t *testing.T) *policydata.Policy {
	t.Helper()
	p := onePod(t)
	p.Sandbox.Storages = []policydata.Storage{}
	for _, c := range p.Containers {
		c.Env.Patterns, c.Env.Templates = nil, map[string]string{"HOSTNAME": "$(sandbox-name)"}
	}
	return p
}

func TestUpstreamsShapeIsJudged(t *testing.T) {
	policy := upstreamPod(t)
	p := &pod{t, emulator(policy), judgeUpstream(t, policy)}
	p.allowed(p.emulator.CreateContainer(sandbox))
	p.denied(p.create("web", func(process, _, _ map[string]any) { process["Args"] = []any{"sh"} }), "args")
	p.denied(p.create("web", func(process, _, _ map[string]any) { process["Env"] = append(process["Env"].([]any), "LD_PRELOAD=x") }), "env")
	p.denied(p.create("web", func(_, oci, _ map[string]any) {
		for _, m := range oci["Mounts"].([]any) {
			m := m.(map[string]any)
			m["source"] = "/x" + m["source"].(string)
		}
	}), "mounts")
	p.denied(p.create("web", func(_, oci, _ map[string]any) {
		oci["Root"].(map[string]any)["Path"] = "/x/run/kata-containers/" + rulestest.ID("web") + "/rootfs"
	}), "id")
	p.allowed(p.create("web", func(process, oci, _ map[string]any) {
		process["Env"] = []any{"POD=web", "HOSTNAME=node", "DB_SERVICE_HOST=10.0.0.1"}
		oci["Mounts"] = oci["Mounts"].([]any)[:3]
	}))
	p.allowed(p.emulator.ExecProcess("web", []string{"true"}))
	p.allowed(p.emulator.ExecProcess("web", []string{"ls"}))
	p.denied(p.emulator.ExecProcess("web", []string{"sh"}), "command")
	p.allowed(lifecycle("SignalProcessRequest", "nobody"))
	if d, err := p.judge.Decide(context.Background(), "ReadStreamRequest", value(t, lifecycle("", "web"))); err != nil || !d.Allowed {
		t.Errorf("output is denied (%v)", err)
	}
}
