// SPDX-License-Identifier: Apache-2.0

package emulator_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"portcullis/images"
	"portcullis/internal/emulator"
	"portcullis/internal/emulator/containerd"
	"portcullis/internal/emulator/controller"
	"portcullis/internal/emulator/hostfs"
	"portcullis/internal/emulator/node"
	"portcullis/internal/emulator/shim"
	"portcullis/internal/generatetest"
)

const labFolder = "../../rules/testdata/genuine"

// labPod is a pod that the lab ran.
type labPod struct {
	Manifest, Namespace, Pod string
	Sandbox                  labContainer
	Containers               []labContainer
}

type labContainer struct {
	Name  string
	Spec  *specs.Spec
	Files map[string][]labFile
}

// labFile is a file below the source of a mount.
type labFile struct {
	Path, Type, Mode, Target, SHA256, Text string
	UID, GID                               uint32
	Varies                                 bool
}

// What kubelet and containerd make of a manifest is what the lab's real ones made:
// each specification, and each file of the mounts.
func TestEmulationEqualsTheLab(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(labFolder, "*.jsonl.gz"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings of the lab (%v)", err)
	}
	store := generatetest.Layout(t, filepath.Join(labFolder, "images.tar.gz"))
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".jsonl.gz")
		for _, recorded := range readLab(t, file) {
			t.Run(name+"/"+recorded.Pod, func(t *testing.T) { compareLab(t, name, store, recorded) })
		}
	}
}

func readLab(t *testing.T, file string) []labPod {
	t.Helper()
	raw, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	plain, err := gzip.NewReader(raw)
	if err != nil {
		t.Fatal(err)
	}
	var out []labPod
	for decoder := json.NewDecoder(bufio.NewReader(plain)); ; {
		var p labPod
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
}

func compareLab(t *testing.T, pair string, store images.Store, recorded labPod) {
	text, err := os.ReadFile(filepath.Join(labFolder, "manifests", recorded.Manifest))
	if err != nil {
		t.Fatal(err)
	}
	m, err := controller.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	release := containerd.V2_4
	if strings.HasPrefix(pair, "containerd-1.6") {
		release = containerd.V1_6
	}
	pod, err := emulator.New(context.Background(), m, 0, emulator.Options{
		Node: labNode(pair, recorded), Containerd: release, Shim: shim.Config{Kind: shim.Go}, Images: emulator.Stores{store}, HostImages: true,
		Pause: "registry.k8s.io/pause:3.10", Capabilities: rigCapabilities(), Pulled: []string{"docker.io/library/busybox:1.36", "ghcr.io/example/app:v1"},
		Identity: controller.Identity{Name: recorded.Pod, UID: recorded.Sandbox.Spec.Annotations["io.kubernetes.cri.sandbox-uid"], Static: recorded.Manifest == "static-pod.yaml"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pod.Start(); err != nil {
		t.Fatal(err)
	}
	made := pod.Specifications()
	for _, c := range append([]labContainer{recorded.Sandbox}, recorded.Containers...) {
		if made[c.Name] == nil {
			t.Fatalf("container %s is not emulated", c.Name)
		}
		if diff := gocmp.Diff(labNormal(c.Spec), labNormal(made[c.Name])); diff != "" {
			t.Errorf("specification of %q (-lab +emulated):\n%s", c.Name, diff)
		}
		compareFiles(t, c, made[c.Name], pod.Files())
	}
}

// labNode is the lab's node, with the address of the pod and what the lab put there.
func labNode(pair string, recorded labPod) *node.Node {
	n := node.Default(1)
	n.IP, n.Memory = "192.0.2.10", 16<<30
	n.NodeDNS = node.DNS{Servers: []string{"192.0.2.53"}, Searches: []string{"example.internal"}}
	if strings.Contains(pair, "kubernetes-1.34") {
		n.Kubelet = 34
	}
	env := map[string]string{}
	for _, c := range recorded.Containers {
		for _, v := range c.Spec.Process.Env {
			name, value, _ := strings.Cut(v, "=")
			env[name] = value
		}
		for source, files := range c.Files {
			if strings.HasSuffix(source, "/etc-hosts") && len(files) > 0 {
				n.PodIP = lastAddress(files[0].Text)
				if _, own, ok := strings.Cut(files[0].Text, "(host network).\n"); ok {
					n.Files["/etc/hosts"] = hostfs.File{Mode: hostfs.Regular | 0o644, Data: []byte(own)}
				}
			}
			for _, f := range files {
				if !strings.HasPrefix(source, "/var/lib/kubelet/pods/") && !strings.HasPrefix(source, "/var/lib/containerd/") && !strings.HasPrefix(source, "/run/containerd/") {
					n.Files[filepath.Join(source, f.Path)] = f.file()
				}
			}
		}
	}
	n.Services = servicesOf(env)
	return n
}

func (f labFile) file() hostfs.File {
	mode, _ := strconv.ParseUint(f.Mode, 8, 32)
	out := hostfs.File{Mode: uint32(mode), UID: f.UID, GID: f.GID, Data: []byte(f.Text)}
	if f.Target != "" {
		out.Data = []byte(f.Target)
	}
	return out
}

var podAddress = regexp.MustCompile(`(?m)^(10\.244\.[0-9]+\.[0-9]+)\t`)

func lastAddress(hosts string) string {
	if m := podAddress.FindStringSubmatch(hosts); m != nil {
		return m[1]
	}
	return ""
}

var labRandom = append([]struct {
	pattern *regexp.Regexp
	with    string
}{
	{id, "<id>"},
	{regexp.MustCompile(`/proc/[0-9]+/ns/`), "/proc/<pid>/ns/"},
	{regexp.MustCompile(`(containers/[^/]+)/[0-9a-f]{8}"`), `$1/<random>"`},
	{regexp.MustCompile(`pvc-<uuid>`), "<volume>"},
}, random[:2]...)

// labNormal is a specification without ids and the order of variables. Its seccomp profile never leaves the host.
func labNormal(spec *specs.Spec) map[string]any {
	raw, err := json.Marshal(spec)
	if err != nil {
		panic(err) // it came from JSON
	}
	text := string(raw)
	for _, r := range append(labRandom, random[5]) {
		text = r.pattern.ReplaceAllString(text, r.with)
	}
	var out map[string]any
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		panic(err)
	}
	process := out["process"].(map[string]any)
	process["env"] = sorted(process["env"])
	delete(process, "apparmorProfile")
	delete(out["linux"].(map[string]any), "seccomp")
	return out
}

// compareFiles holds the files of the volumes, in the order of the mounts.
func compareFiles(t *testing.T, recorded labContainer, made *specs.Spec, files hostfs.FS) {
	t.Helper()
	for i, m := range recorded.Spec.Mounts {
		want := recorded.Files[m.Source]
		if m.Type != "bind" || len(want) == 0 || i >= len(made.Mounts) {
			continue
		}
		var wanted, got []string
		varies := map[string]bool{}
		for _, f := range want {
			at := random[1].pattern.ReplaceAllString(f.Path, "<time>")
			varies[at] = f.Varies
			wanted = append(wanted, describe(at, f.file(), f.SHA256, f.Varies))
		}
		for _, p := range files.Walk(made.Mounts[i].Source) {
			at := random[1].pattern.ReplaceAllString(strings.TrimPrefix(strings.TrimPrefix(p, made.Mounts[i].Source), "/"), "<time>")
			if at == "" {
				at = "."
			}
			sum := sha256.Sum256(files[p].Data)
			got = append(got, describe(at, files[p], hex.EncodeToString(sum[:]), varies[at]))
		}
		if diff := gocmp.Diff(wanted, got); diff != "" {
			t.Errorf("files of %q at %s (-lab +emulated):\n%s", recorded.Name, m.Destination, diff)
		}
	}
}

func describe(at string, f hostfs.File, sum string, varies bool) string {
	target := ""
	if f.Type() == hostfs.Symlink {
		target = random[1].pattern.ReplaceAllString(string(f.Data), "<time>")
	}
	if f.Type() != hostfs.Regular || varies {
		sum = ""
	}
	return fmt.Sprintf("%s %o %d:%d %s %s", at, f.Mode, f.UID, f.GID, target, sum)
}
