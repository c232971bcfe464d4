// SPDX-License-Identifier: Apache-2.0

package explain_test

import (
	"encoding/json"
	"strings"
	"testing"

	"portcullis/internal/rulestest"
	"portcullis/rules/explain"
	"portcullis/rules/policydata"
)

// copied is the path of a file in the volume config of container web.
var copied = "/run/kata-containers/shared/containers/" + rulestest.ID("web") + "-0123456789abcdef-config"

// otherChanges are those of requests that are not CreateContainerRequest, each of
// a container web that exists, and those where the state is what denies.
var otherChanges = []struct {
	kind  string
	state map[string]any // more than web's, or less: a nil takes the key out
	change
}{
	{execKind, nil, change{name: "command", at: "process.Args", to: []any{"sh"}, check: "command", path: "process.Args", wanted: `["/bin/web","--check"]`, got: `["sh"]`}},
	{execKind, nil, change{name: "terminal", at: "process.Terminal", to: true, check: "command", path: "process.Terminal", wanted: "false", got: "true"}},
	{execKind, nil, change{name: "user", at: "process.User.UID", to: 0, check: "process", path: "process.User.UID", wanted: "1000", got: "0"}},
	{execKind, nil, change{name: "directory", at: "process.Cwd", to: "/etc", check: "process", path: "process.Cwd", wanted: "/", got: "/etc"}},
	{execKind, nil, change{name: "rights", at: "process.SelinuxLabel", to: "spc_t", check: "process", path: "process.SelinuxLabel", got: "spc_t"}},
	{execKind, nil, change{name: "variable", at: "process.Env", to: env("LOG_LEVEL", "debug"), check: "env", path: "process.Env[LOG_LEVEL]", wanted: "(hidden, 4 characters)"}},
	{execKind, nil, change{name: "unknown variable", at: "process.Env", to: add("LD_PRELOAD=/evil.so"), check: "env", path: "process.Env[LD_PRELOAD]", wanted: "no such variable"}},
	{execKind, nil, change{name: "id of the container", at: "exec_id", to: rulestest.ID("web"), check: "stdio", path: "exec_id", wanted: "an id of its own"}},
	{execKind, nil, change{name: "input port", at: "stdin_port", to: 9, check: "stdio", path: "stdin_port", wanted: "0", got: "9"}},
	{execKind, map[string]any{"container:" + rulestest.ID("web"): nil}, change{name: "no such container", container: "-", at: "exec_id", to: "x", check: "container", path: "container_id", wanted: "a container that runs"}},
	{execKind, map[string]any{"runs:web": false}, change{name: "container that has ended", at: "exec_id", to: "x", check: "container", path: "container_id", wanted: "a container that runs"}},

	{copyKind, nil, change{name: "path", container: "-", at: "path", to: "/etc/passwd", check: "path", path: "path", got: "/etc/passwd"}},
	{copyKind, nil, change{name: "way out", container: "-", at: "path", to: copied + "/../../x", check: "path", path: "path"}},
	{copyKind, nil, change{name: "set-user-id", container: "-", at: "file_mode", to: 0o4755, check: "mode", path: "file_mode", wanted: "no set-id bits"}},
	{copyKind, nil, change{name: "type", container: "-", at: "file_type", to: "Unknown", check: "type", path: "file_type", got: "Unknown"}},
	{copyKind, nil, change{name: "link", container: "-", at: "", to: map[string]any{"file_type": "Symlink", "symlink_target": "/etc/passwd"}, check: "link", path: "symlink_target", got: "/etc/passwd"}},
	{copyKind, nil, change{name: "content", container: "-", at: "data_sha256", to: "sha256:00", check: "content", path: "data_sha256", got: "sha256:00"}},

	{sandboxKind, nil, change{name: "hook path", container: "$sandbox", at: "guest_hook_path", to: "/hooks", check: "plain", path: "guest_hook_path", wanted: `""`, got: "/hooks"}},
	{sandboxKind, nil, change{name: "module", container: "$sandbox", at: "kernel_modules", to: []any{map[string]any{"name": "evil", "parameters": []any{}}}, check: "plain", path: "kernel_modules", wanted: "[]"}},
	{sandboxKind, nil, change{name: "process namespace", container: "$sandbox", at: "sandbox_pidns", to: true, check: "plain", path: "sandbox_pidns", wanted: "false", got: "true"}},
	{sandboxKind, nil, change{name: "host name", container: "$sandbox", at: "hostname", to: "evil", check: "hostname", path: "hostname", got: "evil"}},
	{sandboxKind, nil, change{name: "storage", container: "$sandbox", at: "storages", to: []any{}, check: "storages", path: "storages[/run/kata-containers/sandbox/shm]", wanted: "ephemeral shm", got: "missing"}},
	{sandboxKind, map[string]any{"sandbox": "x"}, change{name: "twice", container: "$sandbox", at: "sandbox_id", to: "", check: "once", path: "sandbox_id"}},

	{"UpdateInterfaceRequest", nil, change{name: "name", container: "-", at: "interface.name", to: "lo", check: "network", path: "interface.name", got: "lo"}},
	{"UpdateInterfaceRequest", nil, change{name: "address", container: "-", at: "interface.hwAddr", to: "00:00:00:00:00:00", check: "network", path: "interface.hwAddr"}},
	{"UpdateInterfaceRequest", nil, change{name: "flags", container: "-", at: "interface.raw_flags", to: 1, check: "network", path: "interface.raw_flags", wanted: "no bits but those of 0x80", got: "1"}},
	{"UpdateRoutesRequest", nil, change{name: "device", container: "-", at: "routes.Routes.1.device", to: "lo", check: "network", path: "routes.Routes[1].device", got: "lo"}},
	{"UpdateRoutesRequest", nil, change{name: "source", container: "-", at: "routes.Routes.1.source", to: "127.0.0.1", check: "network", path: "routes.Routes[1].source", got: "127.0.0.1"}},
	{"AddARPNeighborsRequest", nil, change{name: "address", container: "-", at: "neighbors.ARPNeighbors.0.toIPAddress.address", to: "127.0.0.1", check: "network", path: "neighbors.ARPNeighbors[0].toIPAddress.address"}},
	{"AddARPNeighborsRequest", nil, change{name: "state", container: "-", at: "neighbors.ARPNeighbors.0.state", to: 7, check: "network", path: "neighbors.ARPNeighbors[0].state", wanted: "one of 2, 128", got: "7"}},

	{createKind, map[string]any{"container:" + rulestest.ID("web"): "web", "running:web": rulestest.ID("web")},
		change{name: "same container twice", at: "stdin_port", to: 0, check: "instance", path: "container_id"}},
	{createKind, map[string]any{"container:other": "web", "running:web": "other"},
		change{name: "container twice", at: "stdin_port", to: 0, check: "instance", path: "OCI.Annotations[io.kubernetes.cri.container-name]", wanted: "a container that does not exist yet"}},
	{createKind, map[string]any{"succeeded:migrate": nil}, change{name: "order", at: "stdin_port", to: 0, check: "order", wanted: "web only after migrate has succeeded"}},
	{createKind, map[string]any{"pod": map[string]any{"id": "x", "name": "y", "namespace": "prod", "network": "", "uid": ""}},
		change{name: "another pod", at: "stdin_port", to: 0, check: "pod", path: "OCI.Annotations[io.kubernetes.cri.sandbox-id]", wanted: "x"}},
}

// network are requests that set up the network, as they are allowed.
var network = map[string]string{
	"UpdateInterfaceRequest": `{"interface":{"name":"eth0","device":"eth0","hwAddr":"02:00:00:00:00:01","raw_flags":0}}`,
	"UpdateRoutesRequest":    `{"routes":{"Routes":[{"device":"eth0","source":"","dest":"10.0.0.0/8"},{"device":"eth0","source":"10.0.0.2","dest":""}]}}`,
	"AddARPNeighborsRequest": `{"neighbors":{"ARPNeighbors":[{"device":"eth0","toIPAddress":{"address":"10.0.0.1","mask":""},"state":128,"flags":0}]}}`,
}

const (
	createKind  = "CreateContainerRequest"
	execKind    = "ExecProcessRequest"
	copyKind    = "CopyFileRequest"
	sandboxKind = "CreateSandboxRequest"
)

// orderly is the shop with containers in order and one file whose content is bound.
func orderly(t *testing.T) *policydata.Policy {
	p := shop(t)
	p.Order = policydata.OrderEnforced
	p.Containers["web"].After = []policydata.After{{Container: "migrate", State: policydata.Succeeded}}
	for destination, m := range p.Containers["web"].Mounts {
		if m.Source == "config" {
			m.Contents = &policydata.Contents{Files: map[string]policydata.File{"a": {SHA256: "sha256:11", Size: 1, Mode: 0o644, Optional: true}}}
			p.Containers["web"].Mounts[destination] = m
		}
	}
	return p
}

func TestOtherRequestsAreNamed(t *testing.T) {
	p := orderly(t)
	e, err := explain.New(fullText(t, p))
	if err != nil {
		t.Fatal(err)
	}
	emulator := rulestest.Emulator{Policy: p, Pod: rulestest.DefaultPod(p)}
	for _, c := range otherChanges {
		t.Run(c.kind+"/"+c.name, func(t *testing.T) {
			var request map[string]any
			state := map[string]any{"succeeded:migrate": true}
			if text, ok := network[c.kind]; ok {
				if err := json.Unmarshal([]byte(text), &request); err != nil {
					t.Fatal(err)
				}
			}
			switch c.kind {
			case execKind:
				request = emulator.ExecProcess("web", []string{"/bin/web", "--check"}).Input
				state["container:"+rulestest.ID("web")] = "web"
				if _, ok := state["runs:web"]; !ok {
					state["runs:web"] = true
				}
				state["pod"] = map[string]any{"name": emulator.Pod.Name, "namespace": emulator.Pod.Namespace, "uid": emulator.Pod.UID}
			case copyKind:
				request = map[string]any{"path": copied + "/a", "file_type": "Regular", "symlink_target": nil, "file_size": 1, "file_mode": 0o644,
					"dir_mode": 0o755, "uid": 0, "gid": 0, "offset": 0, "data_sha256": "sha256:11"}
			case sandboxKind:
				request = emulator.CreateSandbox().Input
			case createKind:
				request = emulator.CreateContainer("web").Input
				state["sandbox"] = ""
			}
			if x := explained(t, e, c.kind, request, state); len(x.Findings) > 0 {
				t.Fatalf("the request as it was: %+v", x.Findings)
			}
			for key, value := range c.state {
				if state[key] = value; value == nil {
					delete(state, key)
				}
			}
			name := map[string]string{"": "web", "-": ""}[c.container]
			if c.container == "$sandbox" {
				name = c.container
			}
			c.judge(t, name, explained(t, e, c.kind, c.apply(t, request), state))
		})
	}
}

// Requests whose rules have no findings say their reason.
func TestRequestsWithoutFindingsSayWhy(t *testing.T) {
	e, err := explain.New(fullText(t, shop(t)))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ kind, wanted string }{
		{"StartContainerRequest", `no container has the id "x"`},
		{"SignalProcessRequest", `no container has the id "x"`},
		{"ReadStreamRequest", "requests.read_stream"},
		{"SetPolicyRequest", "denied whatever it holds"},
		{"GetMetricsRequest", "denied whatever it holds"},
		{"NoSuchRequest", "a rule of that name"},
	}
	for _, test := range tests {
		t.Run(test.kind, func(t *testing.T) {
			x := explained(t, e, test.kind, map[string]any{"container_id": "x", "exec_id": ""}, nil)
			if len(x.Findings) == 0 || !strings.Contains(explain.Words(x.Findings[0].Wanted), test.wanted) {
				t.Errorf("findings %+v, want %q", x.Findings, test.wanted)
			}
			if x.Change == "" {
				t.Error("no word on what to change")
			}
			t.Logf("%s\nchange: %s", x.Sentence(), x.Change)
		})
	}
}
