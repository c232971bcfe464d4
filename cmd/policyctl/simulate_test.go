// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/internal/rulestest"
	"portcullis/rules/policydata"
)

const withInit = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"shop"},"spec":{
  "initContainers":[{"name":"migrate","image":"registry.example/shop/web:1.4","args":["--migrate"]}],
  "containers":[{"name":"web","image":"registry.example/shop/web:1.4"}]}}`

// Who waits for an init container asks how it ended: a recording that did not say it would make every such pod's start unknown.
func TestSimulateSaysThatInitContainersSucceed(t *testing.T) {
	simulate := func(more ...string) []string {
		t.Helper()
		var out, errs bytes.Buffer
		args := append([]string{"simulate", "--oci-layout", "../../docs/operators/images", "--until", "web/CreateContainer", "-"}, more...)
		if code := run(context.Background(), args, stdio{strings.NewReader(withInit), &out, &errs}); code != exitOK {
			t.Fatalf("exit code %d, %s", code, errs.String())
		}
		return strings.Split(strings.TrimSpace(out.String()), "\n")
	}
	for _, test := range []struct {
		name   string
		change []string
		status float64
	}{{"as it is", nil, 0}, {"changed", []string{"--change", "migrate/response.status=1"}, 1}} {
		shown, waited := 0, ""
		for _, line := range simulate(test.change...) {
			var r struct {
				Kind, Observed string
				Request        struct {
					ContainerID string `json:"container_id"`
					Request     struct {
						ContainerID string `json:"container_id"`
					}
					Response struct{ Status *float64 }
				}
			}
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatal(err)
			}
			if r.Observed == "" {
				waited = ""
				if r.Kind == "WaitProcessRequest" {
					waited = r.Request.ContainerID
				}
				continue
			}
			shown++
			if s := r.Request.Response.Status; r.Kind != "" || waited == "" || r.Request.Request.ContainerID != waited || s == nil || *s != test.status {
				t.Errorf("%s: behind the wait for %q comes %s", test.name, waited, line)
			}
		}
		if shown != 1 {
			t.Errorf("%s: %d answers are shown, want that of migrate", test.name, shown)
		}
	}
}

// A report is of what happened: it follows the answers in a recording, as replay does, and shows no line for them.
func TestReportFollowsAnswers(t *testing.T) {
	dir := t.TempDir()
	policy, recording, page := filepath.Join(dir, "p.rego"), filepath.Join(dir, "d.jsonl"), filepath.Join(dir, "p.html")
	p := shop(t)
	inTurn(p)
	writePolicy(t, p, policy)
	writeRecording(t, startOf(p), recording)
	text, err := os.ReadFile(recording)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.ReplaceAll(text, []byte(`"kind":"WaitProcessResponse"`), []byte(`"observed":"WaitProcessResponse"`))
	if err := os.WriteFile(recording, text, 0o600); err != nil {
		t.Fatal(err)
	}
	ctl(t, exitOK, "report", "--policy", policy, "--trace", recording, "-o", page)
	if text, err = os.ReadFile(page); err != nil || !bytes.Contains(text, []byte(" allowed, 0 denied.")) {
		t.Errorf("the page does not say that all was allowed (%v)", err)
	}
}

// Where a recording has no answers, what is wrong in any case is told, and not that the end of an init container is not known.
func TestExplainTellsWhatIsWrongHoweverAnInitContainerEnded(t *testing.T) {
	dir := t.TempDir()
	policy, recording := filepath.Join(dir, "p.rego"), filepath.Join(dir, "d.jsonl")
	p := shop(t)
	inTurn(p)
	writePolicy(t, p, policy)
	for _, name := range []string{"web", "migrate"} {
		writeRecording(t, withoutAnswers(startOf(p), name), recording)
		out, _ := ctl(t, exitOK, "explain", "--policy", policy, recording)
		if !strings.Contains(out, "container "+name+", check args\n") || strings.Contains(out, "container "+name+", check order") {
			t.Errorf("of %s explain says %s", name, out)
		}
	}
}

// withoutAnswers is a start as an agent logs it: waits, the sandbox's too, and no answers. One container's arguments are changed.
func withoutAnswers(start []rulestest.Request, changed string) (out []rulestest.Request) {
	for _, r := range start {
		id, _ := r.Input["container_id"].(string)
		if r.Kind == "WaitProcessResponse" {
			r = rulestest.Request{Kind: "WaitProcessRequest", Input: r.Input["request"].(map[string]any)}
		}
		if r.Kind == "CreateContainerRequest" && id == rulestest.ID(changed) {
			r.Input["OCI"].(map[string]any)["Process"].(map[string]any)["Args"] = []any{"/bin/sh"}
		}
		out = append(out, r)
		if r.Kind == "StartContainerRequest" && id == rulestest.ID(policydata.SandboxContainer) {
			out = append(out, rulestest.Request{Kind: "WaitProcessRequest", Input: map[string]any{"container_id": id, "exec_id": id}})
		}
	}
	return out
}
