// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"portcullis/ci/lab/recording"
)

func load(t *testing.T, name, text string) *Manifest {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	all, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

func TestInitContainersEndAndSidecarsDoNot(t *testing.T) {
	m := load(t, "a.yaml", `
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: other}
spec:
  initContainers: [{name: side, restartPolicy: Always, startupProbe: {exec: {command: ["x"]}}}, {name: setup}]
  containers: [{name: main, livenessProbe: {exec: {command: ["y"]}}, readinessProbe: {exec: {command: ["y"]}}, lifecycle: {postStart: {exec: {command: ["z"]}}}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
`)
	w := m.workloads[0]
	if got, want := w.plan(), (recording.PlanEntry{Namespace: "other", Pod: "a", Containers: []string{"setup"}}); !reflect.DeepEqual(got, want) {
		t.Errorf("plan %+v", got)
	}
	if got, want := w.wanted(), map[string]int{"side": 1, "setup": 0, "main": 2}; !reflect.DeepEqual(got, want) {
		t.Errorf("wanted %v", got)
	}
	if len(m.objects) != 1 || w.spec["nodeName"] != "node1" {
		t.Errorf("objects %v, spec %v", m.objects, w.spec)
	}
}

func TestWorkloadsAndListsAreFound(t *testing.T) {
	m := load(t, "static-a.yaml", `
apiVersion: v1
kind: List
items:
- {apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 3, template: {spec: {containers: [{name: c}]}}}}
- {apiVersion: batch/v1, kind: CronJob, metadata: {name: cron}, spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: c}]}}}}}}
`)
	if len(m.workloads) != 2 || m.workloads[0].count != 3 || m.workloads[1].count != 1 || m.workloads[0].pod || m.static == nil {
		t.Errorf("%+v", m)
	}
}

func TestNamesThatControllersDrawBecomeTheSame(t *testing.T) {
	taken := map[string]bool{}
	for _, c := range []struct {
		made Made
		want string
	}{
		{Made{Name: "web-6c9f-q7kkp", Owned: true}, "web-6c9f-bbbbb"},
		{Made{Name: "web-6c9f-zzzzz", Owned: true}, "web-6c9f-ccccc"},
		{Made{Name: "nightly-29384756-x2x4z", Owned: true}, "nightly-29000000-bbbbb"},
		{Made{Name: "db-0", Owned: true}, "db-0"},
		{Made{Name: "my-pod-xxxxx"}, "my-pod-xxxxx"},
	} {
		if got := steadyName(c.made, taken); got != c.want {
			t.Errorf("%s becomes %s", c.made.Name, got)
		}
	}
}

func TestAFolderWithoutPodsIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("a manifest that makes no pod is run")
	}
}
