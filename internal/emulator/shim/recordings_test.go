// SPDX-License-Identifier: Apache-2.0

package shim_test

import (
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"portcullis/agentproto"
	"portcullis/agentproto/agentpb"
	"portcullis/internal/emulator/hostfs"
	"portcullis/internal/emulator/node"
	"portcullis/internal/emulator/recordings"
	"portcullis/internal/emulator/shim"
)

// A specification that containerd wrote for a container of a pod gives the CreateContainer that the Go shim sent for the same
// container, but for what the two recordings had different: ids, names drawn at random, addresses, and the accounts of images,
// which only the machine of the specifications knew.
func TestSpecificationsGiveRecordedRequests(t *testing.T) {
	folder := recordings.Folder(t)
	compared := 0
	for _, recorded := range recordings.Pods(t, folder, "containerd-2.4.2_kubelet-1.37.2") {
		specifications := readSpecifications(t, filepath.Join(folder, "oci-containerd-2.4.2", recorded.Name+".json.gz"))
		for _, r := range recorded.Requests {
			if r.Annotations() == nil {
				continue
			}
			name, _ := r.Annotations()["io.kubernetes.cri.container-name"].(string)
			spec, ok := specifications[name]
			if !ok || twice(recorded, name) {
				continue
			}
			compared++
			got, want := normal(create(t, spec)), normal(r.Input)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s %s (-recorded +made):\n%s", recorded.Name, name, diff)
			}
		}
	}
	t.Logf("%d containers compared", compared)
	if compared < 100 {
		t.Errorf("only %d containers compared", compared)
	}
}

// twice is true for a container that was created again.
func twice(recorded recordings.Pod, name string) bool {
	n := 0
	for _, r := range recorded.Requests {
		if a := r.Annotations(); a != nil && a["io.kubernetes.cri.container-name"] == name {
			n++
		}
	}
	return n > 1
}

func readSpecifications(t *testing.T, file string) map[string]*specs.Spec {
	t.Helper()
	raw, err := os.Open(file)
	if err != nil {
		return nil // a pod whose containers were not run for specifications
	}
	defer raw.Close()
	plain, err := gzip.NewReader(raw)
	if err != nil {
		t.Fatal(err)
	}
	var entries map[string]json.RawMessage
	if err := json.NewDecoder(plain).Decode(&entries); err != nil {
		t.Fatal(err)
	}
	out := map[string]*specs.Spec{}
	for key, entry := range entries {
		name, ok := strings.CutSuffix(key, ".config")
		if !ok {
			continue
		}
		spec := new(specs.Spec)
		if err := json.Unmarshal(entry, spec); err != nil {
			t.Fatal(err)
		}
		out[strings.TrimPrefix(name, "$sandbox")] = spec
	}
	return out
}

// create is the CreateContainer that the shim makes of a specification.
func create(t *testing.T, spec *specs.Spec) map[string]any {
	t.Helper()
	files := hostfs.FS{}
	for _, m := range spec.Mounts {
		files[m.Source] = fileOf(spec, m)
	}
	config := shim.Config{Kind: shim.Go, GuestPull: true, PullMetadata: true}
	s := shim.New(config, files, node.NewRandom(1))
	sandbox := spec.Annotations["io.kubernetes.cri.sandbox-id"]
	s.CreateSandbox(sandbox, spec, nil, shim.Interface{})
	id := filepath.Base(spec.Linux.CgroupsPath)
	messages := s.CreateContainer(id, "/run/containerd/io.containerd.runtime.v2.task/k8s.io/"+id, spec)
	v, err := agentproto.Input(messages[len(messages)-1].(*agentpb.CreateContainerRequest))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := ast.JSON(v)
	if err != nil {
		t.Fatal(err)
	}
	return plain.(map[string]any)
}

// fileOf is what lay at the source of a mount on the machine of the specifications.
func fileOf(spec *specs.Spec, m specs.Mount) hostfs.File {
	file := hostfs.File{Mode: hostfs.Directory | 0o755}
	name := filepath.Base(m.Source)
	pod := spec.Annotations["io.kubernetes.cri.sandbox-name"]
	switch {
	case strings.Contains(m.Source, "~empty-dir/") && (name == "m" || pod == "slash"):
		file.FileSystem = "tmpfs"
	case name == "sock":
		file.Mode = hostfs.Socket
	}
	if strings.HasPrefix(pod, "sec-") && strings.HasSuffix(pod, "fs") || pod == "sec-fsgroup" {
		file.GID = 2000
	}
	return file
}

var differing = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`[0-9a-f]{64}`), "<id>"},
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "<uuid>"},
	{regexp.MustCompile(`<id>-[0-9a-f]{16}-`), "<id>-<random>-"},
	{regexp.MustCompile(`10\.244\.[0-9]+\.[0-9]+`), "<ip>"},
}

func normal(input map[string]any) map[string]any {
	raw, err := json.Marshal(input)
	if err != nil {
		panic(err) // it came from JSON
	}
	text := string(raw)
	for _, d := range differing {
		text = d.pattern.ReplaceAllString(text, d.with)
	}
	var out map[string]any
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		panic(err)
	}
	process := out["OCI"].(map[string]any)["Process"].(map[string]any)
	delete(process, "Env") // in a new order each time
	user := process["User"].(map[string]any)
	delete(user, "GID")
	delete(user, "AdditionalGids")
	return out
}
