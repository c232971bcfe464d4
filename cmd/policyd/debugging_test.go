// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portcullis/internal/opatest"
	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/policydata"
)

// The way in which people debug a policy: a dump is split, one request is sent with curl to `opa run --server`. It is the
// same with OPA and with policyd under its name. Ours keeps the state, as a guest does, and so answers as replay decides;
// OPA has none, and answers as replay --fresh decides.
func TestADumpIsSplitAndSentWithCurl(t *testing.T) {
	dir := t.TempDir()
	policyctl, err := policyctl()
	if err != nil {
		t.Fatal(err)
	}
	policy, dump, split := filepath.Join(dir, "test1.rego"), filepath.Join(dir, "policy.txt"), filepath.Join(dir, "requests")
	writeShop(t, policy, dump)
	stateful := decisions(t, policyctl, "replay", "--policy", policy, "--split", split, dump)
	fresh := decisions(t, policyctl, "replay", "--policy", policy, "--fresh", dump)

	ours := filepath.Join(dir, "opa")
	if err := os.Symlink(buildPolicyd(t), ours); err != nil {
		t.Fatal(err)
	}
	for _, server := range []struct {
		name, binary string
		want         []bool
	}{{"Portcullis", ours, stateful}, {"OPA", opatest.Binary(t), fresh}} {
		t.Run(server.name, func(t *testing.T) {
			got := answers(t, server.binary, policy, split)
			if fmt.Sprint(got) != fmt.Sprint(server.want) {
				t.Errorf("curl gets %v, want %v", got, server.want)
			}
		})
	}
	if fmt.Sprint(stateful) == fmt.Sprint(fresh) || !strings.Contains(fmt.Sprint(stateful), "false") {
		t.Errorf("the dump tells nothing apart: %v, %v", stateful, fresh)
	}
}

// writeShop writes a policy, and a dump of the kind that agents of that era wrote.
func writeShop(t *testing.T, policy, dump string) {
	t.Helper()
	raw, err := os.ReadFile("../../rules/explain/testdata/shop.json")
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := policydata.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	text, err := p.Full(rules.Text())
	if err != nil {
		t.Fatal(err)
	}
	e := rulestest.Emulator{Policy: p, Pod: rulestest.DefaultPod(p)}
	var lines bytes.Buffer
	for _, r := range append(e.All(), e.ExecProcess("web", []string{"sh"}), e.CreateContainer("web")) {
		input, err := json.Marshal(r.Input)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&lines, "[\"ep\":\"%s\",{\"input\":%s}],\n", r.Kind, input)
	}
	for name, content := range map[string][]byte{policy: text, dump: lines.Bytes()} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// decisions are what policyctl replay says of each request.
func decisions(t *testing.T, policyctl string, args ...string) []bool {
	t.Helper()
	out, err := exec.Command(policyctl, args...).Output()
	if err != nil {
		t.Fatalf("policyctl %v: %v", args, err)
	}
	var list []bool
	for line := range strings.Lines(string(out)) {
		if word, _, _ := strings.Cut(line, " "); word == "ALLOW" || word == "DENY" || word == "UNKNOWN" {
			// Unknown is what a server that carries everything out denies.
			list = append(list, word == "ALLOW")
		}
	}
	return list
}

// answers starts a server as one does at a terminal, and sends it the files in their order.
func answers(t *testing.T, binary, policy, split string) []bool {
	t.Helper()
	address := freeAddress(t)
	cmd := exec.Command(binary, "run", "--server", "--addr", address, policy)
	var stderr lockedBuffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(stderr.String())
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen", binary)
		}
	}
	files, err := filepath.Glob(filepath.Join(split, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	var list []bool
	for _, file := range files {
		kind := strings.TrimSuffix(filepath.Base(file)[len("00001-"):], ".json")
		list = append(list, curl(t, "http://"+address+"/v1/data/agent_policy/"+kind, file))
	}
	return list
}

// curl sends a file as the docs say, and reads the decision: a bool, an object that holds one, or none.
func curl(t *testing.T, url, file string) bool {
	t.Helper()
	out, err := exec.Command("curl", "-sS", "--fail", "--noproxy", "*", "-X", "POST", url, "--data-binary", "@"+file).Output()
	if err != nil {
		t.Fatalf("curl %s: %v", url, err)
	}
	var answer struct{ Result any }
	if err := json.Unmarshal(out, &answer); err != nil {
		t.Fatalf("%s answers %s: %v", url, out, err)
	}
	switch result := answer.Result.(type) {
	case bool:
		return result
	case map[string]any:
		return result["allowed"] == true
	case nil:
		return false
	}
	t.Fatalf("%s answers %s", url, out)
	return false
}
