// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	kata "portcullis/internal/emulator"
	"portcullis/internal/emulator/containerd"
	"portcullis/internal/emulator/emulatortest"
	"portcullis/internal/emulator/shim"
	"portcullis/internal/generatetest"
	"portcullis/internal/rulestest"
)

// anyPod has of everything that runtimes send in more than one form.
const anyPod = `
apiVersion: v1
kind: Pod
metadata: {name: any, namespace: prod, annotations: {io.katacontainers.config.hypervisor.default_vcpus: "2"}}
spec:
  containers:
  - name: app
    image: docker.io/library/nginx:1.29
    resources:
      requests: {cpu: 100m, memory: 64Mi, hugepages-2Mi: 4Mi}
      limits: {cpu: "1", memory: 128Mi, hugepages-2Mi: 4Mi}
    volumeMounts: [{name: huge, mountPath: /huge}]
  volumes: [{name: huge, emptyDir: {medium: HugePages}}]
`

// genuinePod is the policy of anyPod on guest-pull, and what a containerd and a shim send of it.
func genuinePod(t *testing.T, release containerd.Release, kind shim.Kind) (*rulestest.Judge, []rulestest.Request) {
	t.Helper()
	return genuineOf(t, anyPod, release, kind)
}

func genuineOf(t *testing.T, manifest string, release containerd.Release, kind shim.Kind) (*rulestest.Judge, []rulestest.Request) {
	t.Helper()
	const images = "generate/testdata/images.json"
	file := filepath.Join(t.TempDir(), "any.yaml")
	if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	made, _, err := generatetest.Policies(generatetest.Manifest(t, file), generatetest.Settings(t, "guest-pull"), generatetest.Images(t, images))
	if err != nil {
		t.Fatal(err)
	}
	o := emulatortest.Options(t, "guest-pull", generatetest.Store(t, images))
	o.Containerd = release
	if o.Shim, err = kata.Platform("guest-pull", kind); err != nil {
		t.Fatal(err)
	}
	return judgeCompact(t, made[0]), emulatortest.Pods(t, []byte(manifest), o)[0].Requests
}

// One policy fits a pod under each release of containerd and each shim, though they write different OCI versions and hide
// different paths.
func TestOnePolicyFitsEveryRelease(t *testing.T) {
	versions, masked := map[string]bool{}, map[int]bool{}
	for _, release := range containerd.Releases() {
		for _, kind := range []shim.Kind{shim.Go, shim.RuntimeRS} {
			judge, requests := genuinePod(t, release, kind)
			if r := emulatortest.Denied(t, judge, requests); r != nil {
				t.Errorf("containerd %s, %v: %s is denied: %s", release, kind, r.Kind, why(t, judge, *r))
			}
			oci := created(requests, "").Input["OCI"].(map[string]any)
			versions[oci["Version"].(string)] = true
			masked[len(oci["Linux"].(map[string]any)["MaskedPaths"].([]any))] = true
		}
	}
	if len(versions) < 3 || len(masked) < 3 {
		t.Errorf("the releases differ in too little: OCI versions %v, numbers of masked paths %v", versions, masked)
	}
}

// A volume may lie where the runtime has a mount of its own, which then is not made; those below come before it, but for /dev,
// below which containerd drops them.
func TestVolumesOverMountsOfTheRuntime(t *testing.T) {
	for _, path := range []string{"/sys", "/sys/fs/cgroup", "/dev", "/dev/shm", "/etc", "/etc/hosts", "/run", "/var/run"} {
		manifest := "apiVersion: v1\nkind: Pod\nmetadata: {name: over}\nspec:\n  containers:\n" +
			"  - {name: app, image: \"docker.io/library/nginx:1.29\", volumeMounts: [{name: v, mountPath: " + path + "}]}\n" +
			"  volumes: [{name: v, hostPath: {path: " + path + "}}]\n"
		for _, release := range []containerd.Release{containerd.V1_7, containerd.V2_4} {
			judge, requests := genuineOf(t, manifest, release, shim.Go)
			if r := emulatortest.Denied(t, judge, requests); r != nil {
				t.Errorf("%s, containerd %s: %s is denied: %s", path, release, r.Kind, why(t, judge, *r))
			}
		}
	}
}

// created is the request that creates the named container, or the sandbox's.
func created(requests []rulestest.Request, name string) rulestest.Request {
	i := slices.IndexFunc(requests, func(r rulestest.Request) bool {
		if r.Kind != "CreateContainerRequest" {
			return false
		}
		got, _ := annotationsOf(r)["io.kubernetes.cri.container-name"].(string)
		return got == name
	})
	return requests[i]
}

func annotationsOf(r rulestest.Request) map[string]any {
	return r.Input["OCI"].(map[string]any)["Annotations"].(map[string]any)
}

// What only the host chooses is allowed in every known form, and in no other.
func TestFormsOfOneField(t *testing.T) {
	list := func(items ...string) []any {
		var out []any
		for _, item := range items {
			out = append(out, item)
		}
		return out
	}
	logs := func(dir string) string { return dir + "/prod_any_$uid" }
	for _, c := range []struct {
		name, container string
		at              string // below OCI
		allowed, denied []any
	}{
		{"OCI version", "app", "Version", list("1.0.2-dev", "1.1.0", "1.2.0", "1.2.1", "1.3.0"), list("", "2.0.0", "1.3", "1.3.0 ")},
		{"log directory", "", "Annotations/io.kubernetes.cri.sandbox-log-directory",
			list(logs("/var/log/pods"), logs("/data/kubelet/logs")), list("/var/log/pods", logs("relative"), "/var/log/pods/prod_other_$uid", logs("/var/$(x)"))},
		{"network namespace", "", "Annotations/nerdctl~1network-namespace", list("", "/var/run/netns/cni-0a1b2c3d-0000-1111-2222-0123456789ab"), list("/proc/1/ns/net", "/var/run/netns/host")},
		{"pause image", "", "Annotations/io.kubernetes.cri.podsandbox.image-name",
			list("registry.k8s.io/pause:3.10", "mcr.microsoft.com/oss/kubernetes/pause:3.6", "602401143452.dkr.ecr.us-west-2.amazonaws.com/eks/pause:3.10", "gke.gcr.io/pause:3.8@sha256:"+strings.Repeat("0", 64)),
			list("", "../pause", "pause image")},
		{"annotation of the pod that the runtime passes on", "app", "Annotations/io.katacontainers.config.hypervisor.default_vcpus", list("2"), list("3", "")},
		{"annotations of clouds, which no runtime passes on unasked", "app", "Annotations/cloud.google.com~1any", nil, list("x")},
		{"annotations of clouds, which no runtime passes on unasked", "app", "Annotations/azure.workload.identity~1use", nil, list("true")},
		{"annotations of clouds, which no runtime passes on unasked", "app", "Annotations/vpc.amazonaws.com~1pod-eni", nil, list("x")},
		{"size of huge pages", "app", "Linux/Resources/HugepageLimits",
			[]any{[]any{}, pages("2MB", 4<<20), pages("1GB", 0)}, []any{pages("../2MB", 1), pages("", 1)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i, form := range append(slices.Clone(c.allowed), c.denied...) {
				judge, requests := genuinePod(t, containerd.V2_4, shim.Go)
				checkForm(t, judge, requests, c.container, c.at, form, i < len(c.allowed))
			}
		})
	}
}

func pages(size string, limit int) []any {
	return []any{map[string]any{"Pagesize": size, "Limit": limit}}
}

// checkForm puts a value into the request that creates a container, in the state before it.
func checkForm(t *testing.T, judge *rulestest.Judge, requests []rulestest.Request, container, at string, form any, allowed bool) {
	t.Helper()
	ctx := context.Background()
	wanted := created(requests, container)
	for _, r := range requests {
		if r.Kind != wanted.Kind || annotationsOf(r)["io.kubernetes.cri.container-name"] != annotationsOf(wanted)["io.kubernetes.cri.container-name"] {
			if _, err := judge.Ask(ctx, r); err != nil {
				t.Fatal(err)
			}
			continue
		}
		uid, _ := annotationsOf(r)["io.kubernetes.cri.sandbox-uid"].(string)
		if text, ok := form.(string); ok {
			form = strings.ReplaceAll(text, "$uid", uid)
		}
		parent := r.Input["OCI"].(map[string]any)
		keys := strings.Split(at, "/")
		for _, key := range keys[:len(keys)-1] {
			parent = parent[key].(map[string]any)
		}
		parent[strings.ReplaceAll(keys[len(keys)-1], "~1", "/")] = form
		withMetadata(t, r)
		d, err := judge.Ask(ctx, r)
		if err != nil || d.Allowed != allowed {
			t.Errorf("%s %q: allowed is %v, want %v (%v): %s", at, form, d.Allowed, allowed, err, why(t, judge, r))
		}
		return
	}
}

// withMetadata repeats the annotations in the pull of the image.
func withMetadata(t *testing.T, r rulestest.Request) {
	t.Helper()
	storages := r.Input["storages"].([]any)
	if len(storages) > 0 {
		storages[0].(map[string]any)["driver_options"] = []any{}
	}
}

// Services are named as their owners like, also with a digit first.
func TestServiceLinksOfAnyName(t *testing.T) {
	p := newPod(t, richPod(t), sandbox)
	with := func(entries ...any) rulestest.Request {
		return p.create("web", func(process, _, _ map[string]any) { process["Env"] = append(process["Env"].([]any), entries...) })
	}
	for _, entry := range []string{"1UP_SERVICE_HOST=10.0.0.1; x", "1UP_SERVICE_PORT=http", "_SERVICE_HOST=10.0.0.1", "1UP_PORT_80_TCP=file:///x", "1up_SERVICE_HOST=10.0.0.1"} {
		p.denied(with(entry), "env")
	}
	p.allowed(with("1UP_SERVICE_HOST=10.0.0.1", "1UP_SERVICE_PORT_WEB=80", "1UP_PORT=tcp://10.0.0.1:80", "9_PORT_80_TCP_PROTO=tcp", "X_SERVICE_HOST=fd00::1"))
}

// The kubelet writes a ConfigMap that changed into a new directory and moves the link ..data there. As long as not every file is
// there, the link does not move, whichever comes first: the container keeps what it has.
func TestARunningPodKeepsAConfigMapThatChanges(t *testing.T) {
	dir := "/run/kata-containers/shared/containers/" + rulestest.ID("web") + "-0123456789abcdef-shop"
	copied := func(path, kind string, change map[string]any) rulestest.Request {
		r := rulestest.CopyFile(dir+path, kind)
		for key, v := range change {
			r.Input[key] = v
		}
		return r
	}
	file := func(path, sha string) rulestest.Request {
		return copied(path, "Regular", map[string]any{"data_sha256": sha, "file_size": 4, "data_size": 4, "file_mode": 0o644})
	}
	folder := func(path string) rulestest.Request {
		return copied(path, "Directory", map[string]any{"file_mode": 0o755})
	}
	link := func(path, target string) rulestest.Request {
		return copied(path, "Symlink", map[string]any{"symlink_target": target})
	}
	const old, next = "..2026_11_23_08_00_00.123", "..2026_11_23_09_00_00.456"
	good, changed := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	p := newPod(t, richPod(t), sandbox)
	for _, r := range []rulestest.Request{folder(""), folder("/" + old), file("/"+old+"/shop.conf", good), link("/..data", old), link("/shop.conf", "..data/shop.conf")} {
		p.allowed(r)
	}
	p.allowed(folder("/" + next))
	p.denied(link("/..data", next), "content") // runtime-rs: links before files
	p.denied(file("/"+next+"/shop.conf", changed), "content")
	p.denied(link("/..data", next), "content") // Go shim: files before links
	p.denied(file("/"+old+"/shop.conf", changed), "content")
	p.denied(link("/"+old, next), "content")
	p.denied(link("/shop.conf", next+"/shop.conf"), "content")
	p.denied(file("/shop.conf", changed), "content")
	p.allowed(link("/..data", old)) // it is where it was
	p.allowed(file("/"+next+"/shop.conf", good))
	p.allowed(link("/..data", next)) // whole again: the same content, written anew
	p.denied(link("/..data", old), "content")
}

// row is a row of the table in docs/versions.md: what, in which forms, and the tests.
var row = regexp.MustCompile("(?m)^\\| [^|]+ \\| [^|]+ \\| (`[^|]+`) \\|$")

var heldBy = regexp.MustCompile("`([A-Za-z_]+)(/[^`]*)?`")

// Each thing that docs/versions.md says runtimes differ in has a test of that name.
func TestWhatRuntimesDifferInHasItsTests(t *testing.T) {
	text, err := os.ReadFile("../docs/versions.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "## What runtimes differ in\n")
	table, _, _ = strings.Cut(table, "\n## ")
	rows := row.FindAllStringSubmatch(table, -1)
	if !found || len(rows) < 15 {
		t.Fatalf("the table has %d rows", len(rows))
	}
	tests := allTests(t)
	for _, r := range rows {
		for _, name := range heldBy.FindAllStringSubmatch(r[1], -1) {
			if !tests[name[1]] {
				t.Errorf("there is no test %s", name[1])
			}
			if pod, ok := strings.CutPrefix(name[2], "/…/"); ok {
				if _, err := os.Stat(filepath.Join("testdata", "genuine", "manifests", pod+".yaml")); err != nil {
					t.Error(err)
				}
			}
		}
	}
}
