// SPDX-License-Identifier: Apache-2.0

package learn_test

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"portcullis/engine/trace"
	"portcullis/internal/emulator/emulatortest"
	"portcullis/internal/emulator/recordings"
	"portcullis/internal/generatetest"
	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/generate"
	"portcullis/rules/learn"
	"portcullis/rules/policydata"
	"portcullis/rules/settings"
)

// student makes the policies of one manifest's first pod.
type student struct {
	platform string
	strict   string // a drop-in below what is learned
	manifest []byte
	images   generate.Images
	judge    *rulestest.Judge // of OPA
	learner  learn.Learner    // keeps what it compiled
}

func judge(t *testing.T) *rulestest.Judge {
	t.Helper()
	j, err := rulestest.New(rules.Text(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// settings are those of the platform under the lessons.
func (s *student) settings(lessons []learn.Lesson) (*settings.Settings, error) {
	below := settings.DropIn{Name: "strict", Text: []byte(s.strict)}
	text, err := learn.Render(lessons, func(key []string) ([]any, error) { return s.list(below, key) })
	if err != nil {
		return nil, err
	}
	return settings.Load(s.platform, below, settings.DropIn{Name: "learned", Text: text})
}

// list is what a list of the settings holds without lessons.
func (s *student) list(below settings.DropIn, key []string) ([]any, error) {
	set, err := settings.Load(s.platform, below)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(set)
	if err != nil {
		return nil, err
	}
	var at any
	if err := json.Unmarshal(raw, &at); err != nil {
		return nil, err
	}
	for _, part := range key {
		table, _ := at.(map[string]any)
		at = table[part]
	}
	values, _ := at.([]any)
	return values, nil
}

func (s *student) data(lessons []learn.Lesson) (*policydata.Policy, error) {
	set, err := s.settings(lessons)
	if err != nil {
		return nil, err
	}
	m, err := generate.Parse("pod.yaml", s.manifest, generate.ReadOptions{})
	if err != nil {
		return nil, err
	}
	made, _, err := generatetest.Policies(m, set, s.images)
	if err != nil {
		return nil, err
	}
	return made[0], nil
}

// learn learns from requests.
func (s *student) learn(t *testing.T, requests []rulestest.Request) (*learn.Learned, error) {
	t.Helper()
	s.learner.Make = func(_ context.Context, lessons []learn.Lesson) ([]byte, error) {
		p, err := s.data(lessons)
		if err != nil {
			return nil, err
		}
		return p.Compact(rules.Text())
	}
	s.learner.Recording = nil
	for i, r := range requests {
		raw, err := json.Marshal(r.Input)
		if err != nil {
			t.Fatal(err)
		}
		s.learner.Recording = append(s.learner.Recording, trace.Record{Line: i + 1, Kind: r.Kind, Request: raw})
	}
	return s.learner.Learn(context.Background())
}

// denied is the first request that OPA denies under the lessons, by the kinds that a pod needs.
func (s *student) denied(t *testing.T, lessons []learn.Lesson, requests []rulestest.Request) *rulestest.Request {
	t.Helper()
	p, err := s.data(lessons)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := p.JSON()
	if err != nil {
		t.Fatal(err)
	}
	judge, err := s.judge.Under(raw)
	if err != nil {
		t.Fatal(err)
	}
	return emulatortest.Denied(t, judge, requests)
}

// strict are settings that know one release of containerd, and little of it.
const strict = `
[common]
oci_versions = ["1.2.0"]
bundle_path = "/run/k3s/$(container-id)"
[common.annotations]
patterns = { "io.kubernetes.cri.podsandbox.image-name" = "$(remove)" }
[common.paths.default]
optional = []
[generate.sandbox.sysctl]
"net.ipv4.ip_unprivileged_port_start" = "$(remove)"
"net.ipv4.ping_group_range" = "$(remove)"
[generate.sandbox.mounts]
"/etc/resolv.conf" = { options = ["rbind", "ro", "nosuid"] }
[[sandbox.storages]]
driver = "ephemeral"
driver_options = []
source = "shm"
fstype = "tmpfs"
options = ["noexec", "nosuid", "nodev", "mode=1777", "size=4096"]
mount_point = "/run/kata-containers/sandbox/shm"
shared = false
`

// A strict policy denies what real containerds sent; one run learns the lines under which it is allowed, and without any of them
// it is denied again.
func TestRecordedPodsOfAnotherContainerdAreLearned(t *testing.T) {
	folder := recordings.Folder(t)
	pods := map[string][]string{
		"containerd-1.7.35_kubelet-1.34.4": {"config", "probes"},
		"containerd-2.4.2_kubelet-1.37.2":  {"sysctls"},
		"runtime-rs-4.1.0_peer-pods":       {"w-simple"},
	}
	learned, opa := 0, judge(t)
	for set, names := range pods {
		store := generatetest.Layout(t, filepath.Join(folder, "images.tgz"))
		for _, recorded := range recordings.Pods(t, folder, set) {
			if !slices.Contains(names, recorded.Name) {
				continue
			}
			learned++
			t.Run(set+"/"+recorded.Name, func(t *testing.T) {
				s := &student{platform: "peer-pods", strict: strict, manifest: recorded.Manifest, images: generatetest.Stored{Store: store}, judge: opa}
				var needed []rulestest.Request
				for _, r := range recorded.Requests {
					if r.Allowed {
						needed = append(needed, rulestest.Request{Kind: r.Kind, Input: r.Input})
					}
				}
				s.checkLearned(t, needed, 6)
			})
		}
	}
	if learned != 4 {
		t.Errorf("%d pods were found, want 4", learned)
	}
}

// checkLearned holds that requests are denied, that one run makes them allowed, and that no line is too much.
func (s *student) checkLearned(t *testing.T, requests []rulestest.Request, atLeast int) []learn.Lesson {
	t.Helper()
	if s.denied(t, nil, requests) == nil {
		t.Fatal("there is nothing to learn")
	}
	got, err := s.learn(t, requests)
	if err != nil {
		t.Fatal(err)
	}
	if r := s.denied(t, got.Lessons, requests); r != nil {
		t.Fatalf("%s is denied still", r.Kind)
	}
	if len(got.Lessons) < atLeast {
		t.Errorf("%d lessons, want %d", len(got.Lessons), atLeast)
	}
	for i, l := range got.Lessons {
		without := slices.Delete(slices.Clone(got.Lessons), i, i+1)
		if s.denied(t, without, requests) == nil {
			t.Errorf("%s = %v is not needed", strings.Join(l.Key, "."), l.Value)
		}
	}
	return got.Lessons
}

const small = `apiVersion: v1
kind: ConfigMap
metadata: {name: conf, namespace: prod}
data: {one: "1", two: "2"}
---
apiVersion: v1
kind: Pod
metadata: {name: small, namespace: prod}
spec:
  initContainers:
  - {name: setup, image: "docker.io/library/busybox:1.37", command: [setup]}
  containers:
  - name: app
    image: docker.io/library/nginx:1.29
    volumeMounts:
    - {name: scratch, mountPath: /scratch}
    - {name: cache, mountPath: /cache}
    - {name: conf, mountPath: /etc/app}
  - name: side
    image: docker.io/library/busybox:1.37
    command: [sleep, "1"]
    volumeMounts:
    - {name: scratch, mountPath: /scratch}
    - {name: cache, mountPath: /cache}
  volumes:
  - {name: scratch, emptyDir: {}}
  - {name: cache, emptyDir: {}}
  - {name: conf, configMap: {name: conf}}
`

// pupil is the student of the small pod, and its requests as they are sent on a platform.
func pupil(t *testing.T, platform, sentOn, strict string) (*student, []rulestest.Request) {
	t.Helper()
	const images = "../generate/testdata/images.json"
	pods := emulatortest.Pods(t, []byte(small), emulatortest.Options(t, sentOn, generatetest.Store(t, images)))
	start := []string{"CreateSandboxRequest", "CreateContainerRequest", "CopyFileRequest", "StartContainerRequest"}
	requests := slices.DeleteFunc(pods[0].Requests, func(r rulestest.Request) bool { return !slices.Contains(start, r.Kind) })
	// The recording does not hold how setup ended.
	return &student{platform: platform, strict: "order = \"free\"\n" + strict, manifest: []byte(small), images: generatetest.Images(t, images)}, requests
}

// Kata makes a directory of the guest of an emptyDir, or a disk with a key that only the guest has: which of the two is learned,
// and how large the guest's shared memory is.
func TestStoragesAreLearned(t *testing.T) {
	opa := judge(t)
	for _, c := range []struct{ platform, sentOn, strict, want string }{
		{"guest-pull", "peer-pods", "", `generate.empty_dir = "local"`},
		{"peer-pods", "guest-pull", "", `generate.empty_dir = "block-encrypted"`},
		{"guest-pull", "guest-pull", strict[strings.Index(strict, "[[sandbox"):], "sandbox.storages = "},
	} {
		t.Run(c.platform+"/"+c.sentOn, func(t *testing.T) {
			s, requests := pupil(t, c.platform, c.sentOn, c.strict)
			s.judge = opa
			lessons := s.checkLearned(t, requests, 1)
			text, err := learn.Render(lessons, nil)
			if err != nil || len(lessons) != 1 || !strings.Contains(string(text), c.want) {
				t.Errorf("%d lessons (%v):\n%s\nwant %s", len(lessons), err, text, c.want)
			}
		})
	}
}

// What a hostile host asks for is refused, whatever kind of thing it is, and no line is given; or it stays denied.
func TestNoAttackIsLearned(t *testing.T) {
	s, requests := pupil(t, "guest-pull", "guest-pull", "")
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			s.strict = a.settings
			checkRefused(t, s, a.change(t, requests))
		})
	}
}

// Nor is it where genuine differences come before it.
func TestNoAttackAmongDifferencesIsLearned(t *testing.T) {
	s, requests := pupil(t, "guest-pull", "guest-pull", strict)
	for _, a := range attacks[:3] {
		t.Run(a.name, func(t *testing.T) {
			checkRefused(t, s, a.change(t, requests))
		})
	}
}

func checkRefused(t *testing.T, s *student, requests []rulestest.Request) {
	t.Helper()
	got, err := s.learn(t, requests)
	if err == nil {
		denied := slices.ContainsFunc(got.Left, func(left string) bool { return strings.Contains(left, "CreateContainerRequest") })
		if len(got.Lessons) > 0 || !denied {
			t.Fatalf("learned %+v, want a refusal", got.Lessons)
		}
		return
	}
	if !errors.Is(err, learn.ErrBound) {
		t.Fatal(err)
	}
}
