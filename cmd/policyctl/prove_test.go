// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portcullis/rules/policydata"
)

func TestProve(t *testing.T) {
	dir := t.TempDir()
	old, next, witness, floor := filepath.Join(dir, "old.rego"), filepath.Join(dir, "new.rego"), filepath.Join(dir, "witness.jsonl"), filepath.Join(dir, "floor.toml")
	p := shop(t)
	writePolicy(t, p, old)
	p.Requests.ReadStream = !p.Requests.ReadStream
	writePolicy(t, p, next)
	if p.Requests.ReadStream {
		old, next = next, old
	}
	if err := os.WriteFile(floor, []byte(`require = ["stdout closed"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--within", old, next}, exitOK, "proven: " + next + " allows no more than " + old},
		{[]string{"--within", "--witness", witness, next, old}, exitNo, "the last one a ReadStreamRequest"},
		{[]string{"--equal", old, next}, exitNo, "requests.read_stream: one opens output to the host (check stdio)"},
		{[]string{"--equal", old, old}, exitOK, "proven"},
		{[]string{next, "stdout closed"}, exitOK, "proven: stdout closed"},
		{[]string{"--floor", floor, old}, exitNo, "refuted: stdout closed"},
		{[]string{"--json", old, "stdout closed"}, exitNo, `{"question":"stdout closed","verdict":"refuted","witness":{"check":"stdio"`},
		{[]string{old, "no such thing"}, exitUsage, `no such property: "no such thing"; policyctl prove --list names them`},
		{[]string{"--within", old}, exitUsage, "want two policies"},
		{[]string{old}, exitUsage, "want a policy and what to prove"},
		{[]string{"--list"}, exitOK, "container NAME cannot see volume V\n"},
		{[]string{"testdata/../prove_test.go", "no exec"}, exitFail, "rego_parse_error"},
	} {
		stdout, stderr, code := policyctl(append([]string{"prove"}, test.args...)...)
		if code != test.code || !strings.Contains(stdout+stderr, test.says) {
			t.Errorf("prove %q: exit code %d, want %d\n%s%s", test.args, code, test.code, stdout, stderr)
		}
	}
	// The witness is a recording that replay reads: all of it is allowed by one, the last is denied by the other.
	must(t, "replay", "--policy", old, witness)
	if stdout, _, _ := policyctl("replay", "--policy", next, "--denied", witness); !strings.Contains(stdout, "ReadStreamRequest") {
		t.Errorf("the stricter policy allows the witness:\n%s", stdout)
	}
}

func TestAProofThatTakesLongSaysSo(t *testing.T) {
	read, write := io.Pipe()
	done := workingOn("b allows no more than a", write, time.Millisecond)
	line, err := bufio.NewReader(read).ReadString('\n')
	if want := "policyctl: b allows no more than a: compared for "; err != nil || !strings.HasPrefix(line, want) {
		t.Errorf("it says %q (%v)", line, err)
	}
	read.Close()
	done()
	var out strings.Builder
	workingOn("x", &out, time.Hour)()
	if out.Len() > 0 {
		t.Errorf("what takes no time says %q", &out)
	}
}

// Names in a policy are its maker's: what is printed of them is a line of text.
func TestProofsPrintNothingThatATerminalActsOn(t *testing.T) {
	dir := t.TempDir()
	old, next := filepath.Join(dir, "old.rego"), filepath.Join(dir, "new.rego")
	p := shop(t)
	writePolicy(t, p, old)
	for _, c := range p.Containers {
		if c.Type != policydata.TypeSandbox {
			c.Mounts["/x\x1bc\nproven: all is well"] = policydata.Mount{From: policydata.MountExact, Source: "/dev/null", Type: "bind"}
		}
	}
	writePolicy(t, p, next)
	for _, args := range [][]string{{"prove", "--equal", old, next}, {"diff", old, next}} {
		stdout, stderr, code := policyctl(args...)
		if code != exitNo || !strings.Contains(stdout, "all is well") || strings.ContainsRune(stdout, '\x1b') || strings.Contains(stdout, "\nproven: all is well") {
			t.Errorf("%q: exit code %d\n%q\n%s", args, code, stdout, stderr)
		}
	}
}
