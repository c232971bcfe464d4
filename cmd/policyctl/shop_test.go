// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/policydata"
)

// shop is the pod that package explain's tests speak of.
func shop(tb testing.TB) *policydata.Policy {
	tb.Helper()
	text, err := os.ReadFile("../../rules/explain/testdata/shop.json")
	if err != nil {
		tb.Fatal(err)
	}
	p, _, err := policydata.Parse(text)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// writePolicy writes the full form of a policy to a file.
func writePolicy(tb testing.TB, p *policydata.Policy, file string) {
	tb.Helper()
	text, err := p.Full(rules.Text())
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		tb.Fatal(err)
	}
}

// inTurn has web wait for migrate, and migrate for the sandbox.
func inTurn(p *policydata.Policy) {
	p.Order = policydata.OrderEnforced
	p.Containers["migrate"].After = []policydata.After{{Container: policydata.SandboxContainer, State: policydata.Started}}
	p.Containers["web"].After = []policydata.After{{Container: "migrate", State: policydata.Succeeded}}
}

// startOf is a pod's start as its policy wants it.
func startOf(p *policydata.Policy) []rulestest.Request {
	return rulestest.Emulator{Policy: p, Pod: rulestest.DefaultPod(p)}.All()
}

// life is a pod's start, with requests among it that its policy denies.
func life(p *policydata.Policy) []rulestest.Request {
	e := rulestest.Emulator{Policy: p, Pod: rulestest.DefaultPod(p)}
	evil := e.CreateContainer("web")
	process := evil.Input["OCI"].(map[string]any)["Process"].(map[string]any)
	process["Args"] = []any{"/bin/web", "--listen=:22", "--log=json"}
	requests := e.All()
	requests = slices.Insert(requests, 1, evil)
	requests = append(requests, e.ExecProcess("web", []string{"sh", "-c", "cat /run/secrets/token"}))
	for range 12 {
		requests = append(requests, rulestest.Request{Kind: "WaitProcessRequest", Input: map[string]any{"container_id": rulestest.ID("web"), "exec_id": ""}})
	}
	return append(requests, rulestest.Request{Kind: "SetPolicyRequest", Input: map[string]any{"policy": "package agent_policy"}},
		rulestest.Request{Kind: "ReadStreamRequest", Input: map[string]any{"container_id": rulestest.ID("web"), "exec_id": "", "len": 4096}})
}

// writeRecording writes requests as the decision log of an agent has them.
func writeRecording(tb testing.TB, requests []rulestest.Request, file string) {
	tb.Helper()
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	for i, r := range requests {
		line := map[string]any{"kind": r.Kind, "request": r.Input, "time": fmt.Sprintf("2026-11-20T08:00:%02d.125Z", i%60)}
		if err := enc.Encode(line); err != nil {
			tb.Fatal(err)
		}
	}
	if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// policyctl runs the program, and gives what it says and its exit code.
func policyctl(args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	code = run(context.Background(), args, stdio{strings.NewReader(""), &out, &errs})
	return out.String(), errs.String(), code
}

// must runs the program, which has to end with 0.
func must(tb testing.TB, args ...string) string {
	tb.Helper()
	stdout, stderr, code := policyctl(args...)
	if code != exitOK {
		tb.Fatalf("policyctl %s: exit code %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

func TestReportHoldsTheDecisionsOfATrace(t *testing.T) {
	dir := t.TempDir()
	policy, recording, page := filepath.Join(dir, "shop.rego"), filepath.Join(dir, "policy.jsonl"), filepath.Join(dir, "shop.html")
	writePolicy(t, shop(t), policy)
	writeRecording(t, life(shop(t)), recording)
	must(t, "report", "--policy", policy, "--trace", recording, "-o", page)
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	flat := strings.ReplaceAll(string(text), "<wbr>", "")
	for _, words := range []string{"got --listen=:22, wanted --listen=:8080", "× 12", "SetPolicyRequest", "requests.read_stream", "2026-11-20 08:00:00.125", "SetPolicy is denied once this policy rules."} {
		if !strings.Contains(flat, words) {
			t.Errorf("the page does not say %q", words)
		}
	}
	if strings.Contains(flat, "correct-horse") {
		t.Error("the page shows a secret")
	}
}
