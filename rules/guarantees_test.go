// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"portcullis/internal/rulestest"
	"portcullis/rules/policydata"
)

// pod is a running pod of a policy, to be asked what it must refuse.
type pod struct {
	*testing.T
	emulator rulestest.Emulator
	judge    *rulestest.Judge
}

// newPod returns a pod in which the named containers have been created and started.
func newPod(t *testing.T, p *policydata.Policy, names ...string) *pod {
	t.Helper()
	out := &pod{t, emulator(p), judgeCompact(t, p)}
	out.allowed(out.emulator.CreateSandbox())
	for _, name := range names {
		out.run(name)
	}
	return out
}

// run creates a container and starts it.
func (p *pod) run(name string) {
	p.Helper()
	p.allowed(p.emulator.CreateContainer(name))
	p.allowed(lifecycle("StartContainerRequest", name))
}

func (p *pod) ask(r rulestest.Request) bool {
	p.Helper()
	d, err := p.judge.Ask(context.Background(), r)
	if err != nil {
		p.Fatalf("%s: %v", r.Kind, err)
	}
	return d.Allowed
}

func (p *pod) allowed(r rulestest.Request) {
	p.Helper()
	if !p.ask(r) {
		p.Fatalf("%s is denied: %s", r.Kind, why(p.T, p.judge, r))
	}
}

// denied wants a denial, and a finding that names the check.
func (p *pod) denied(r rulestest.Request, check string) {
	p.Helper()
	if p.ask(r) {
		p.Fatalf("%s is allowed", r.Kind)
	}
	if got := why(p.T, p.judge, r); check != "" && !strings.Contains(got, `"check":"`+check+`"`) {
		p.Errorf("findings are %s, want one of %q", got, check)
	}
}

// create returns the request for a container, changed.
func (p *pod) create(name string, change func(process, oci map[string]any, input map[string]any)) rulestest.Request {
	r := p.emulator.CreateContainer(name)
	oci := r.Input["OCI"].(map[string]any)
	change(oci["Process"].(map[string]any), oci, r.Input)
	return r
}

func lifecycle(kind, name string) rulestest.Request {
	return rulestest.Request{Kind: kind, Input: map[string]any{"container_id": rulestest.ID(name), "exec_id": "", "signal": 15, "timeout": 0}}
}

func waited(name string, status int) rulestest.Request {
	return rulestest.Request{Kind: "WaitProcessResponse", Input: map[string]any{
		"request":  map[string]any{"container_id": rulestest.ID(name), "exec_id": ""},
		"response": map[string]any{"status": status},
	}}
}

func TestArgumentsAreTheManifests(t *testing.T) {
	p := newPod(t, richPod(t), sandbox)
	for _, args := range [][]any{{"/bin/init-db", "--unsafe"}, {}, {"/bin/sh"}, {"/bin/init-db "}} {
		p.denied(p.create("init-db", func(process, _, _ map[string]any) { process["Args"] = args }), "args")
	}
	p.denied(p.create("web", func(process, _, _ map[string]any) {
		process["Args"] = []any{"serve", "--name=$(sandbox-name)", "--shard=7"}
	}), "args")
	p.denied(p.create("web", func(process, _, _ map[string]any) { process["Args"].([]any)[2] = "--shard=7 --root" }), "args")
	p.allowed(p.emulator.CreateContainer("web"))
}

func TestNoExtraEnvironment(t *testing.T) {
	p := newPod(t, richPod(t), sandbox)
	for _, entry := range []string{
		"LD_PRELOAD=/evil.so", "LEVEL=debug", "LEVEL=info", "LEVEL", "=x", "A_SERVICE_HOST=10.0.0.1",
		"KUBERNETES_SERVICE_HOST=10.0.0.2", "POD_IP=10.0.0.1", "X_SERVICE_HOST=10.0.0.1\nLD_PRELOAD=x", "x_SERVICE_HOST=10.0.0.1",
	} {
		p.denied(p.create("web", func(process, _, _ map[string]any) { process["Env"] = append(process["Env"].([]any), entry) }), "env")
	}
	p.allowed(p.create("web", func(process, _, _ map[string]any) {
		process["Env"] = append(process["Env"].([]any), "DB_PORT_5432_TCP=tcp://[fd00::1]:5432", "DB_SERVICE_HOST=fd00::1", "TERM=xterm", "TOKEN_FILE=/var/run/token")
	}))
}

func TestNoMissingEnvironment(t *testing.T) {
	p := newPod(t, richPod(t), sandbox)
	count := len(p.emulator.CreateContainer("web").Input["OCI"].(map[string]any)["Process"].(map[string]any)["Env"].([]any))
	for i := range count {
		p.denied(p.create("web", func(process, _, _ map[string]any) {
			process["Env"] = slices.Delete(process["Env"].([]any), i, i+1)
		}), "env")
	}
	p.denied(p.create("web", func(process, _, _ map[string]any) { process["Env"] = []any{} }), "env")
}

func TestOnlyTheExpectedImage(t *testing.T) {
	p := newPod(t, richPod(t), sandbox)
	pull := func(input map[string]any) map[string]any { return input["storages"].([]any)[0].(map[string]any) }
	for name, change := range map[string]func(input map[string]any){
		"another source":      func(in map[string]any) { pull(in)["source"] = "registry.example/evil" },
		"the pause image":     func(in map[string]any) { pull(in)["source"] = "pause" },
		"no pull":             func(in map[string]any) { in["storages"] = in["storages"].([]any)[1:] },
		"two pulls":           func(in map[string]any) { in["storages"] = append(in["storages"].([]any), pull(in)) },
		"another mount point": func(in map[string]any) { pull(in)["mount_point"] = "/run/kata-containers/other/rootfs" },
		"metadata of a sandbox": func(in map[string]any) {
			pull(in)["driver_options"] = []any{`image_guest_pull={"metadata":{"io.kubernetes.cri.container-type":"sandbox"}}`}
		},
		"more metadata": func(in map[string]any) {
			pull(in)["driver_options"] = append(pull(in)["driver_options"].([]any), "image_guest_pull={}")
		},
		"an empty metadata":      func(in map[string]any) { pull(in)["driver_options"] = []any{"image_guest_pull={}"} },
		"options for the root":   func(in map[string]any) { pull(in)["options"] = []any{"rw"} },
		"a shared root":          func(in map[string]any) { pull(in)["shared"] = true },
		"a block device instead": func(in map[string]any) { pull(in)["driver"] = "blk" },
	} {
		t.Run(name, func(t *testing.T) {
			p := &pod{t, p.emulator, p.judge}
			p.denied(p.create("web", func(_, _, input map[string]any) { change(input) }), "")
		})
	}
	p.denied(p.create("web", func(_, oci, _ map[string]any) {
		oci["Annotations"].(map[string]any)["io.kubernetes.cri.image-name"] = "registry.example/evil"
	}), "image")
}

// The kubelet names an image as the manifest does, older ones by its whole name.
func TestAnImageIsKnownByBothOfItsNames(t *testing.T) {
	policy := onePod(t)
	policy.Containers["web"].Image.Also = []string{"web:1"}
	image := policy.Containers["web"].OCI.Annotations.ImageName
	other := func(name string) rulestest.Request {
		return rewrite(emulator(policy).CreateContainer("web"), image, name)
	}
	p := newPod(t, policy, sandbox)
	p.denied(other("web:2"), "image")
	p.denied(other("pause"), "image")
	p.denied(rewrite(emulator(policy).CreateContainer(sandbox), "pause", "web:1"), "")
	p.allowed(other("web:1"))
	p.allowed(lifecycle("RemoveContainerRequest", "web"))
	p.allowed(other(image))
}

func TestOnlyTheExpectedLayers(t *testing.T) {
	layered := onePod(t)
	web := layered.Containers["web"]
	root := strings.Repeat("ab", 32)
	web.Image.From, web.Image.Layers = policydata.Layers, []string{root}
	web.Storages = []policydata.Storage{
		{Driver: "$(block)", Source: "$(device)", FSType: "tar", Options: []string{"ro", "root-hash=" + root}, MountPoint: "/run/kata-containers/sandbox/layers/a"},
		{Driver: "overlayfs", FSType: "fuse3.kata-overlay", Options: []string{"lowerdir=a"}, MountPoint: "$(root)", Source: "none"},
	}
	p := newPod(t, layered, sandbox)
	layer := func(input map[string]any, i int) map[string]any { return input["storages"].([]any)[i].(map[string]any) }
	p.denied(p.create("web", func(_, _, in map[string]any) {
		layer(in, 0)["options"] = []any{"ro", "root-hash=" + strings.Repeat("cd", 32)}
	}), "storages")
	p.denied(p.create("web", func(_, _, in map[string]any) { layer(in, 0)["options"] = []any{"ro"} }), "storages")
	p.denied(p.create("web", func(_, _, in map[string]any) { in["storages"] = in["storages"].([]any)[1:] }), "storages")
	p.denied(p.create("web", func(_, _, in map[string]any) { layer(in, 1)["mount_point"] = "$(root)" }), "storages")
	p.denied(p.create("web", func(_, _, in map[string]any) { layer(in, 0)["driver"] = "$(block)" }), "storages")
	p.denied(p.create("web", func(_, _, in map[string]any) {
		in["storages"] = append(in["storages"].([]any), map[string]any{"driver": "image_guest_pull", "driver_options": []any{}, "source": "evil", "fstype": "overlay",
			"options": []any{}, "mount_point": layer(in, 1)["mount_point"], "fs_group": nil, "shared": false})
	}), "")
	p.allowed(p.emulator.CreateContainer("web"))
}

func TestNoOtherProcess(t *testing.T) {
	p := newPod(t, richPod(t), sandbox, "init-db", "web")
	p.allowed(p.emulator.ExecProcess("web", []string{"true"}))
	p.denied(p.emulator.ExecProcess("web", []string{"sh"}), "command")
	p.denied(p.emulator.ExecProcess("web", []string{"true", "-x"}), "command")
	p.denied(p.emulator.ExecProcess("init-db", []string{"true"}), "command")
	p.denied(p.emulator.ExecProcess("gpu", []string{"true"}), "container")
	change := func(set map[string]any) rulestest.Request {
		r := p.emulator.ExecProcess("web", []string{"true"})
		maps.Copy(r.Input["process"].(map[string]any), set)
		return r
	}
	p.denied(change(map[string]any{"Terminal": true}), "command")
	p.denied(change(map[string]any{"Cwd": "/tmp"}), "process")
	p.denied(change(map[string]any{"User": map[string]any{"UID": 0, "GID": 0, "AdditionalGids": []any{}, "Username": ""}}), "process")
	p.denied(change(map[string]any{"Env": []any{}}), "env")
}

func TestNoStdinUnlessAskedFor(t *testing.T) {
	p := newPod(t, richPod(t), sandbox, "init-db", "web")
	write := func(name, exec string) rulestest.Request {
		return rulestest.Request{Kind: "WriteStreamRequest", Input: map[string]any{"container_id": rulestest.ID(name), "exec_id": exec, "data": []any{}}}
	}
	p.allowed(write("web", ""))
	p.allowed(write("web", rulestest.ID("web")))
	p.denied(write("web", "exec-1"), "")
	p.denied(write("init-db", ""), "")
	p.denied(write("gpu", ""), "")
	p.denied(p.create("init-cache", func(_, _, in map[string]any) { in["stdin_port"] = 1 }), "stdio")
	p.denied(p.create("init-cache", func(_, _, in map[string]any) { in["stdout_port"] = 1 }), "stdio")
}

func TestNoContainerTwice(t *testing.T) {
	p := newPod(t, richPod(t), sandbox, "web")
	p.denied(p.emulator.CreateContainer("web"), "instance")
	other := p.emulator
	twin := rewrite(other.CreateContainer("web"), rulestest.ID("web"), rulestest.ID("twin"))
	p.denied(twin, "instance")
	p.allowed(lifecycle("RemoveContainerRequest", "web"))
	p.allowed(twin)
	p.denied(p.emulator.CreateContainer("web"), "instance")
}

func TestNoContainerOutOfOrder(t *testing.T) {
	policy := richPod(t, "ordered")
	p := newPod(t, policy)
	p.denied(p.emulator.CreateContainer("init-db"), "order")
	p.allowed(p.emulator.CreateContainer(sandbox))
	p.denied(p.emulator.CreateContainer("init-db"), "order")
	p.allowed(lifecycle("StartContainerRequest", sandbox))
	p.denied(p.emulator.CreateContainer("init-cache"), "order")
	p.denied(p.emulator.CreateContainer("web"), "order")
	p.run("init-db")
	p.denied(p.emulator.CreateContainer("init-cache"), "order")
	p.allowed(waited("init-db", 1)) // an exit code other than 0 is no success
	p.denied(p.emulator.CreateContainer("init-cache"), "order")
	p.allowed(lifecycle("RemoveContainerRequest", "init-db"))
	p.run("init-db")
	p.allowed(waited("init-db", 0))
	p.allowed(lifecycle("RemoveContainerRequest", "init-db"))
	p.run("init-cache")
	p.denied(p.emulator.CreateContainer("web"), "order")
	p.allowed(waited("init-cache", 0))
	p.allowed(p.emulator.CreateContainer("web"))
}

// signalled is a signal to the process of a container.
func signalled(name string, signal int) rulestest.Request {
	r := lifecycle("SignalProcessRequest", name)
	r.Input["signal"] = signal
	return r
}

func TestNoSuccessOfASignalledContainer(t *testing.T) {
	p := newPod(t, richPod(t, "ordered"), sandbox, "init-db")
	p.allowed(signalled("init-db", 15))
	p.allowed(waited("init-db", 0))
	p.denied(p.emulator.CreateContainer("init-cache"), "order")
}

// What comes next may be a sidecar, for which the others wait to run: they do not ask once more who succeeded before it.
func TestNoSidecarAfterASignalledContainer(t *testing.T) {
	policy := richPod(t, "ordered")
	policy.Containers["web"].After = []policydata.After{{Container: "init-cache", State: policydata.Started}}
	p := newPod(t, policy, sandbox, "init-db")
	p.allowed(signalled("init-db", 15))
	p.allowed(waited("init-db", 0))
	p.denied(p.emulator.CreateContainer("init-cache"), "order")
}

// A process ends once: its first exit code counts.
func TestNoSuccessAfterAFailure(t *testing.T) {
	p := newPod(t, richPod(t, "ordered"), sandbox, "init-db")
	p.allowed(waited("init-db", 1))
	p.allowed(waited("init-db", 0))
	p.denied(p.emulator.CreateContainer("init-cache"), "order")
}

func TestNoContainerBesideOneThatWasEnded(t *testing.T) {
	p := newPod(t, richPod(t, "ordered"), sandbox)
	p.allowed(signalled(sandbox, 9))
	p.denied(p.emulator.CreateContainer("init-db"), "order")
}

func TestNoInitContainerAgainOnceItSucceeded(t *testing.T) {
	p := newPod(t, richPod(t, "ordered"), sandbox, "init-db")
	p.allowed(waited("init-db", 0))
	p.allowed(lifecycle("RemoveContainerRequest", "init-db"))
	p.denied(p.emulator.CreateContainer("init-db"), "order")
}

func TestNoSignalButThoseThatAKubeletSends(t *testing.T) {
	policy := richPod(t)
	policy.Containers["web"].StopSignal = 3
	p := newPod(t, policy, sandbox, "init-db", "web")
	for _, signal := range []int{0, 1, 2, 10, 18, 19, 20, 21, 22, 28, 37} {
		p.denied(signalled("web", signal), "signal")
	}
	for _, signal := range []int{3, 9, 15} {
		p.allowed(signalled("web", signal))
	}
	p.denied(signalled("init-db", 3), "signal")
}

func TestNoControlGroupOfAnother(t *testing.T) {
	p := newPod(t, richPod(t), sandbox)
	for _, path := range []string{"/system.slice/policyd.service", "/kubepods/x", "/kubepods/" + rulestest.ID(sandbox), "system.slice:policyd:1"} {
		p.denied(p.create("web", func(_, oci, _ map[string]any) { oci["Linux"].(map[string]any)["CgroupsPath"] = path }), "linux")
	}
}

func TestNoNetworkNamespaceOfItsOwn(t *testing.T) {
	p := newPod(t, richPod(t), sandbox)
	with := func(paths ...string) rulestest.Request {
		return p.create("web", func(_, oci, _ map[string]any) {
			linux := oci["Linux"].(map[string]any)
			for _, path := range paths {
				linux["Namespaces"] = append(linux["Namespaces"].([]any), map[string]any{"Type": "network", "Path": path})
			}
		})
	}
	p.denied(with(""), "namespaces")
	p.denied(with("/proc/1/ns/net"), "namespaces")
	p.denied(with("/run/netns/podns", "/run/netns/podns"), "namespaces")
}

func TestNoContainerInTheRootOfAnother(t *testing.T) {
	for _, dropIn := range [][]string{nil, {"compat-kata"}} {
		p := newPod(t, richPod(t, dropIn...), sandbox)
		request := p.create("web", func(_, _, _ map[string]any) {})
		request.Input["container_id"] = rulestest.ID("init-db")
		p.denied(request, "id")
	}
}

func TestNoIDThatNamesADirectoryOfTheAgent(t *testing.T) {
	p := newPod(t, richPod(t), sandbox)
	for _, id := range []string{"sandbox", "shared", "image", "passthrough", rulestest.ID("web") + "-0123456789abcdef"} {
		request := p.create("web", func(_, oci, _ map[string]any) {
			root := oci["Root"].(map[string]any)
			root["Path"] = strings.ReplaceAll(root["Path"].(string), rulestest.ID("web"), id)
		})
		request.Input["container_id"] = id
		p.denied(request, "id")
	}
}

func TestNoChangedConfigMapFile(t *testing.T) {
	p := newPod(t, richPod(t), sandbox)
	dir := "/run/kata-containers/shared/containers/" + rulestest.ID("web") + "-0123456789abcdef-shop"
	file := func(path, sha string, offset int) rulestest.Request {
		return rulestest.Request{Kind: "CopyFileRequest", Input: map[string]any{"path": dir + path, "file_type": "Regular", "symlink_target": nil,
			"file_size": 4, "file_mode": 0o644, "dir_mode": 0o755, "uid": 0, "gid": 0, "offset": offset, "data_sha256": sha}}
	}
	link := func(path, target string) rulestest.Request {
		r := file(path, "", 0)
		r.Input["file_type"], r.Input["symlink_target"] = "Symlink", target
		return r
	}
	good, dated := strings.Repeat("ab", 32), "/..2026_11_23_08_00_00.123"
	directory := file(dated, "", 0)
	directory.Input["file_type"], directory.Input["file_mode"] = "Directory", 0o755
	p.allowed(directory)
	p.allowed(file(dated+"/shop.conf", good, 0))
	p.allowed(link("/..data", dated[1:]))
	p.allowed(link("/shop.conf", "..data/shop.conf"))
	p.denied(file(dated+"/shop.conf", strings.Repeat("cd", 32), 0), "content")
	p.denied(file(dated+"/shop.conf", good, 1), "content")
	p.denied(file(dated+"/other.conf", good, 0), "content")
	p.denied(file("", good, 0), "content")
	p.denied(link("/shop.conf", "..data/other.conf"), "content")
	p.denied(link("/shop.conf", "../../x"), "link")
	p.denied(link("/..data", "data"), "content")
	p.denied(link("/..data", "..2026_11_23_09_00_00.123"), "content")
	p.denied(link("/shop.conf.tmp", "..data/shop.conf"), "link")
	unread := directory
	unread.Input["file_mode"] = 0o700
	p.denied(unread, "content")
	elsewhere := rewrite(file(dated+"/shop.conf", good, 0), "-shop/", "-else/")
	p.denied(elsewhere, "content")
	p.denied(link("/shop.conf", "/etc/shadow"), "link")
	unhashed := file("/shop.conf", "", 0)
	delete(unhashed.Input, "data_sha256")
	p.denied(unhashed, "content")
	setuid := file("/shop.conf", good, 0)
	setuid.Input["file_mode"] = 0o4755
	p.denied(setuid, "mode")
}

// rewrite replaces text in every string of a request.
func rewrite(r rulestest.Request, from, to string) rulestest.Request {
	var walk func(any) any
	walk = func(v any) any {
		switch v := v.(type) {
		case string:
			return strings.ReplaceAll(v, from, to)
		case []any:
			for i := range v {
				v[i] = walk(v[i])
			}
		case map[string]any:
			for k := range v {
				v[k] = walk(v[k])
			}
		}
		return v
	}
	return rulestest.Request{Kind: r.Kind, Input: walk(r.Input).(map[string]any)}
}
