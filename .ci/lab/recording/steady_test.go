// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// raw is one pod's raw recording with the ids that one run happened to draw.
func raw(t *testing.T, id, uid, pod, moment string) Raw {
	t.Helper()
	sandbox, container := strings.Repeat(id, 64), strings.Repeat(id, 63)+"0"
	text := func(s string) json.RawMessage {
		return json.RawMessage(strings.NewReplacer("SANDBOX", sandbox, "UID", uid, "POD", pod, "MOMENT", moment, "X5", strings.Repeat(id, 5), "X8", strings.Repeat(id, 8), "LINKS", links(id)).Replace(s))
	}
	source := "/var/lib/kubelet/pods/" + uid + "/volumes/c"
	return Raw{
		Calls: []RawCall{
			{Method: "RunPodSandbox", ID: sandbox, Sandbox: sandbox, Request: text(`{"config":{"metadata":{"name":"POD","uid":"UID"}}}`)},
			{Method: "CreateContainer", ID: container, Sandbox: sandbox, Request: text(`{"mounts":["kube-api-access-X5","/pods/UID/containers/main/X8"],"envs":[{"key":"A"},LINKS]}`)},
		},
		Containers: map[string]*Recorded{
			sandbox: {RawContainer: RawContainer{ID: sandbox, Namespace: "default", Pod: pod, Spec: text(`{"process":{"env":[]},"n":"/proc/1` + "7" + `/ns/ipc","net":"cni-UID"}`)}},
			container: {RawContainer: RawContainer{ID: container, Namespace: "default", Pod: pod, Name: "main", Spec: text(`{"sandbox":"SANDBOX"}`),
				Files: map[string][]File{source: {{Path: "name", Type: "file", Text: pod, Size: int64(len(pod)), SHA256: "of " + pod}, {Path: "..data", Target: moment}}}}},
		},
	}
}

// links come out of a map of the kubelet's, as base64.
func links(id string) string {
	one, two := `{"key":"KUBERNETES_PORT","value":"MQ=="}`, `{"key":"APP","value":"Mg=="}`
	if id == "a" {
		return one + "," + two
	}
	return two + "," + one
}

func TestRecordingsOfTwoRunsAreTheSame(t *testing.T) {
	var finished []string
	for _, run := range []Raw{
		raw(t, "a", "11111111-2222-3333-4444-555555555555", "web-7d9f-x2x4z", "..2026_11_28_19_00_00.123"),
		raw(t, "b", "99999999-8888-7777-6666-555555555555", "web-7d9f-q7kkp", "..2027_01_02_03_04_05.9"),
	} {
		pod := "web-7d9f-x2x4z"
		for _, c := range run.Containers {
			pod = c.Pod
		}
		p, err := run.Finish("deployment.yaml", "default", pod, "web-7d9f-bbbbb")
		if err != nil {
			t.Fatal(err)
		}
		text, err := encode(p)
		if err != nil {
			t.Fatal(err)
		}
		finished = append(finished, string(text))
	}
	if finished[0] != finished[1] {
		t.Errorf("two runs differ:\n%s\n%s", finished[0], finished[1])
	}
	if want := `"envs":[{"key":"A"},{"key":"APP","value":"2"},{"key":"KUBERNETES_PORT","value":"1"}]`; !strings.Contains(finished[0], want) {
		t.Errorf("no %s in %s", want, finished[0])
	}
	for _, left := range []string{"aaaaa", "11111111-2222", "x2x4z", "2026_11_28", "/proc/17/", `of web`} {
		if strings.Contains(finished[0], left) {
			t.Errorf("%q of one run is still in %s", left, finished[0])
		}
	}
}

func TestRestartsAndRetriesAreLeftOut(t *testing.T) {
	r := Raw{Calls: []RawCall{{Method: "RunPodSandbox", ID: "s"}, {Method: "CreateContainer", ID: "one"}, {Method: "CreateContainer", ID: "two"}},
		Containers: map[string]*Recorded{}}
	for _, id := range []string{"s", "one", "two"} {
		name := "main"
		if id == "s" {
			name = ""
		}
		r.Containers[id] = &Recorded{RawContainer: RawContainer{ID: id, Namespace: "n", Pod: "p", Name: name}}
	}
	if got := r.Pod("n", "p")["main"].ID; got != "one" {
		t.Errorf("the container that counts is %s", got)
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f.gz")
	pods := []Pod{{Manifest: "b.yaml", Pod: "b", Sandbox: Container{CRI: json.RawMessage(`{"a":"<&>"}`), Spec: json.RawMessage(`{}`)}}, {Manifest: "a.yaml", Sandbox: Container{CRI: json.RawMessage(`{}`), Spec: json.RawMessage(`{}`)}}}
	if err := Write(name, pods); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	read, err := Read(name)
	if err != nil || len(read) != 2 || read[0].Manifest != "a.yaml" || string(read[1].Sandbox.CRI) != `{"a":"<&>"}` {
		t.Fatalf("read %+v (%v)", read, err)
	}
	if err := Write(name, read); err != nil {
		t.Fatal(err)
	}
	if second, err := os.ReadFile(name); err != nil || string(first) != string(second) {
		t.Errorf("written again it differs (%v)", err)
	}
}

func TestPlanKnowsPodsOfControllersByPrefix(t *testing.T) {
	p := Plan{{Namespace: "n", Pod: "web", Prefix: true, Containers: []string{"setup"}}, {Namespace: "n", Pod: "one", Containers: []string{"setup"}}}
	for _, c := range []struct {
		pod, container string
		want           bool
	}{{"web-1-abcde", "setup", true}, {"web-1-abcde", "main", false}, {"one", "setup", true}, {"one-more", "setup", false}} {
		if got := p.EndsAtOnce("n", c.pod, c.container); got != c.want {
			t.Errorf("%s in %s ends at once: %v", c.container, c.pod, got)
		}
	}
}
