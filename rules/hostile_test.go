// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"strings"
	"testing"

	"portcullis/images"
	"portcullis/internal/generatetest"
	"portcullis/internal/imagestest"
	"portcullis/internal/rulestest"
	"portcullis/rules/generate"
	"portcullis/rules/settings"
)

// What hostile hosts have sent, kind by kind, under policies of manifests.

// blogImages have one image whose VOLUME no manifest names.
func blogImages() generatetest.Stored {
	store := imagestest.NewStore()
	store.Add("registry.example/blog:6", imagestest.WithFiles(images.Config{Entrypoint: []string{"/blog"}, WorkingDir: "/srv/site", Volumes: []string{"/srv/site"}}, nil))
	store.Add("registry.k8s.io/pause:3.10", imagestest.WithFiles(images.Config{Entrypoint: []string{"/pause"}, User: "65535:65535"}, nil))
	return generatetest.Stored{Store: store}
}

const blogPod = `apiVersion: v1
kind: Pod
metadata: {name: blog, namespace: prod}
spec:
  automountServiceAccountToken: false
  containers:
  - name: blog
    image: registry.example/blog:6
    volumeMounts: [{name: scratch, mountPath: /scratch}]
  volumes:
  - {name: scratch, emptyDir: {}}
`

// hostilePod is a pod whose sandbox runs, under the policy of a manifest on a platform.
func hostilePod(t *testing.T, manifest, platform, over string) *pod {
	t.Helper()
	s, err := settings.Load(platform, settings.DropIn{Name: "test", Text: []byte(over)})
	if err != nil {
		t.Fatal(err)
	}
	m, err := generate.Parse("pod.yaml", []byte(manifest), generate.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	made, _, err := generatetest.Policies(m, s, blogImages())
	if err != nil {
		t.Fatal(err)
	}
	return newPod(t, made[0], sandbox)
}

// below is where a shim puts what a container has at a mount: dir/<id>-<16 digits>-<name>.
func (p *pod) below(container, destination string) string {
	for _, m := range p.emulator.CreateContainer(container).Input["OCI"].(map[string]any)["Mounts"].([]any) {
		if m := m.(map[string]any); m["destination"] == destination {
			return m["source"].(string)
		}
	}
	p.Fatalf("%s has no mount at %s", container, destination)
	return ""
}

// file is a CopyFile of a whole regular file.
func file(path, text string) rulestest.Request {
	r := rulestest.CopyFile(path, "Regular")
	maps.Copy(r.Input, map[string]any{"file_mode": 0o100644, "file_size": len(text), "data_size": len(text), "data_sha256": fmt.Sprintf("%x", sha256.Sum256([]byte(text)))})
	return r
}

func link(path, target string) rulestest.Request {
	r := rulestest.CopyFile(path, "Symlink")
	r.Input["symlink_target"] = target
	return r
}

func with(r rulestest.Request, fields map[string]any) rulestest.Request {
	input := maps.Clone(r.Input)
	maps.Copy(input, fields)
	return rulestest.Request{Kind: r.Kind, Input: input}
}

// A VOLUME of the image that the manifest has no volume for is an empty directory, before its container and beside it.
func TestAVolumeOfTheImageTakesNothingOfTheHost(t *testing.T) {
	p := hostilePod(t, blogPod, "guest-pull", "")
	at := p.below("blog", "/srv/site")
	p.allowed(rulestest.CopyFile(at, "Directory"))
	hostile := func() {
		t.Helper()
		p.denied(file(at+"/index.php", "<?php system($_GET[0]);"), "content")
		p.denied(link(at+"/index.php", "other"), "content")
		p.denied(rulestest.CopyFile(at+"/more", "Directory"), "content")
		p.denied(link(at+"/index.php", "..data/index.php"), "content")
		p.denied(link(at+"/..data", "more"), "content")
		p.denied(file(at+"/..2026_01_02_03_04_05.6/index.php", "<?php system($_GET[0]);"), "content")
	}
	hostile()
	p.allowed(p.emulator.CreateContainer("blog"))
	p.allowed(lifecycle("StartContainerRequest", "blog"))
	hostile()
}

const twoConfigs = `apiVersion: v1
kind: ConfigMap
metadata: {name: inner, namespace: prod}
data: {accounts: "admin\n", deny.conf: "all\n"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: outer, namespace: prod}
data: {accounts: "guest\n"}
---
apiVersion: v1
kind: Pod
metadata: {name: two, namespace: prod}
spec:
  automountServiceAccountToken: false
  containers:
  - {name: in, image: "registry.example/blog:6", volumeMounts: [{name: inner, mountPath: /etc/a/conf}]}
  - {name: out, image: "registry.example/blog:6", volumeMounts: [{name: outer, mountPath: /etc/b/conf}]}
  volumes:
  - {name: inner, configMap: {name: inner}}
  - {name: outer, configMap: {name: outer}}
`

// Files are bound per container and key, not per name: all of them, before the container is made, and as they were.
func TestFilesAreNeitherSwappedNorLeftOutNorTakenAway(t *testing.T) {
	p := hostilePod(t, twoConfigs, "guest-pull", "")
	at, dir := p.below("in", "/etc/a/conf"), "/..2026_11_23_08_00_00.1"
	for _, r := range p.emulator.CopyFiles("in") {
		path := r.Input["path"].(string)
		if !strings.HasPrefix(path, at) {
			continue // the volume of the image
		}
		p.denied(p.emulator.CreateContainer("in"), "contents")
		if strings.HasSuffix(path, dir+"/deny.conf") {
			p.denied(file(path, "none\n"), "content")
			p.denied(with(r, map[string]any{"file_mode": 0o100000}), "content")
		}
		p.allowed(r)
	}
	p.allowed(p.emulator.CreateContainer("in"))
	p.denied(file(at+dir+"/accounts", "guest\n"), "content") // what the other container has there
	p.allowed(rulestest.CopyFile(at+"/..2026_11_23_09_00_00.1", "Directory"))
	p.denied(link(at+"/..data", "..2026_11_23_09_00_00.1"), "content")
	p.denied(rulestest.CopyFile(at+"/accounts", "Directory"), "content")
	p.denied(with(file(at+dir+"/accounts", "admin\n"), map[string]any{"file_mode": 0o100000}), "content")
	p.denied(with(rulestest.CopyFile(at+dir, "Directory"), map[string]any{"file_mode": 0o40000}), "content")
}

const nestedConfig = `apiVersion: v1
kind: ConfigMap
metadata: {name: rules, namespace: prod}
data: {deny: "all\n"}
---
apiVersion: v1
kind: Pod
metadata: {name: nested, namespace: prod}
spec:
  automountServiceAccountToken: false
  containers:
  - {name: in, image: registry.example/blog:6, volumeMounts: [{name: rules, mountPath: /etc/rules}]}
  volumes:
  - {name: rules, configMap: {name: rules, items: [{key: deny, path: dir/deny}]}}
`

// Where the kubelet links a directory of the volume, an empty directory in its place hides the files.
func TestNoDirectoryStandsForALinkToFiles(t *testing.T) {
	p := hostilePod(t, nestedConfig, "guest-pull", "")
	at := p.below("in", "/etc/rules")
	for _, r := range p.emulator.CopyFiles("in") {
		if r.Input["path"] == at+"/dir" {
			r = rulestest.CopyFile(at+"/dir", "Directory")
		}
		p.allowed(r)
	}
	p.denied(p.emulator.CreateContainer("in"), "contents")
}

// The agent writes a file by way of another that it may share with the next, and waits for as many bytes as the request says.
func TestAFileIsCopiedWholeOrNotAtAll(t *testing.T) {
	p := hostilePod(t, twoConfigs, "guest-pull", "")
	dir := p.below("in", "/etc/a/conf") + "/..2026_11_23_08_00_00.1"
	p.allowed(rulestest.CopyFile(dir, "Directory"))
	whole := file(dir+"/accounts", "admin\n")
	for _, other := range []map[string]any{
		{"file_size": 7}, {"file_size": 5}, {"file_size": 0}, {"offset": 1}, {"offset": 6}, {"data_size": 5},
	} {
		p.denied(with(whole, other), "content")
	}
	p.allowed(whole)
}

// What is no container's id is none in a path either: mounts and files are read by one grammar.
func TestNoFileOfAnIDThatIsNone(t *testing.T) {
	p := hostilePod(t, twoConfigs, "guest-pull", "")
	good := p.below("in", "/etc/a/conf")
	id := rulestest.ID("in")
	for _, other := range []string{id + "-0123456789abcdef", "sandbox", "shared", id[:63], strings.ToUpper(id[:1]) + "A" + id[2:], "../" + id} {
		at := strings.Replace(good, id, other, 1)
		p.denied(rulestest.CopyFile(at, "Directory"), "")
		p.denied(file(at+"/..2026_11_23_08_00_00.1/accounts", "guest\n"), "")
		p.denied(rewrite(p.emulator.CreateContainer("in"), id, other), "")
	}
}

// A device is of its kind, and stands where that kind of device does: the agent takes the number of whatever the path is.
func TestADeviceStandsWhereItsKindDoes(t *testing.T) {
	p := newPod(t, richPod(t), sandbox)
	device := func(kind, path string) rulestest.Request {
		return p.create("gpu", func(_, _, in map[string]any) {
			for _, d := range in["devices"].([]any) {
				if d := d.(map[string]any); d["container_path"] == "/dev/data" {
					d["type_"], d["vm_path"] = kind, path
				}
			}
		})
	}
	for kind, paths := range map[string][]string{
		"nvdimm":     {"/dev/mem", "/dev/tpmrm0", "dev/tpmrm0", "/dev/char/10:224", "/proc/self/root/dev/tpm0", "/dev/vda", "/dev/sda", "/dev/pmem0/../mem", "/dev/pmem0\n"},
		"blk":        {"/dev/mem", "/dev/pmem0", "/dev/sda", "/dev/block/253:0", "vda"},
		"scsi":       {"/dev/mem", "/dev/vda", "/dev/sg0"},
		"char":       {"/dev/vda", ""},
		"vfio-pci":   {"/dev/vfio/0", ""},
		"":           {""},
		"ephemeral":  {"/dev/shm"},
		"vfio-pci-x": {""},
	} {
		for _, path := range paths {
			p.denied(device(kind, path), "devices")
		}
	}
	for kind, path := range map[string]string{"nvdimm": "/dev/pmem0", "blk": "/dev/vdb", "scsi": "/dev/sdb", "mmioblk": "/dev/vdc"} {
		d, err := p.judge.Decide(context.Background(), "CreateContainerRequest", value(t, device(kind, path)))
		if err != nil || !d.Allowed {
			t.Errorf("%s at %s is denied (%v)", kind, path, err)
		}
	}
}
