// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shopFiles writes the shop's policy and the recording of its life.
func shopFiles(t *testing.T) (policy, recording string) {
	dir := t.TempDir()
	policy, recording = filepath.Join(dir, "shop.rego"), filepath.Join(dir, "policy.jsonl")
	writePolicy(t, shop(t), policy)
	writeRecording(t, life(shop(t)), recording)
	return policy, recording
}

const unboundNote = "note: this policy does not bind what the image of metrics holds; genpolicy --lock-digests does\n"

func TestExplainSaysThreeLinesForEachDenial(t *testing.T) {
	policy, recording := shopFiles(t)
	text := must(t, "explain", "--policy", policy, recording)
	rest, ok := strings.CutPrefix(text, unboundNote)
	if !ok {
		t.Errorf("does not open with the image that is not bound:\n%s", text)
	}
	denials := strings.Count(rest, "DENY ")
	if lines := strings.Count(rest, "\n"); denials != 4 || lines > 3*denials {
		t.Errorf("%d denials in %d lines:\n%s", denials, lines, rest)
	}
	if strings.Contains(text, "\x1b") {
		t.Error("coloured, but not for a terminal")
	}
	if colored := must(t, "explain", "--policy", policy, "--color", "always", recording); !strings.Contains(colored, "\x1b[31mDENY\x1b[0m") {
		t.Errorf("not coloured when asked for:\n%s", colored)
	}
}

func TestExplainSelectsRequests(t *testing.T) {
	policy, recording := shopFiles(t)
	if one := must(t, "explain", "--policy", policy, "--line", "2", recording); strings.Count(one, "DENY ") != 1 || !strings.Contains(one, "(line 2)") {
		t.Errorf("line 2 alone:\n%s", one)
	}
	if none := must(t, "explain", "--policy", policy, "--line", "1", recording); none != unboundNote+"1 request, none denied\n" {
		t.Errorf("a request that is allowed:\n%s", none)
	}
	for _, args := range [][]string{{"--line", "999"}, {"--case", "no such"}, {"--color", "maybe"}} {
		if _, said, code := policyctl(append([]string{"explain", "--policy", policy, recording}, args...)...); code != exitUsage || strings.Count(said, "\n") != 1 {
			t.Errorf("%v: exit code %d, %q", args, code, said)
		}
	}
}

func TestExplainAsJSON(t *testing.T) {
	policy, recording := shopFiles(t)
	dec := json.NewDecoder(strings.NewReader(must(t, "explain", "--policy", policy, "--json", recording)))
	var first struct {
		Line            int
		Kind, Container string
		Checks          []struct{ Name, Result string }
		Findings        []struct {
			Check, Path string
			Wanted, Got any
		}
		Change string
	}
	if err := dec.Decode(&first); err != nil {
		t.Fatal(err)
	}
	f := first.Findings[0]
	if first.Line != 2 || first.Kind != "CreateContainerRequest" || first.Container != "web" || f.Check != "args" || f.Path != "OCI.Process.Args[1]" ||
		f.Wanted != "--listen=:8080" || f.Got != "--listen=:22" || first.Change == "" || len(first.Checks) < 20 {
		t.Errorf("got %+v", first)
	}
	n := 1
	for ; dec.More(); n++ {
		var rest any
		if err := dec.Decode(&rest); err != nil {
			t.Fatal(err)
		}
	}
	if n != 4 {
		t.Errorf("%d objects, want one for each of 4 denials", n)
	}
}

// A terminal gets colours unless somebody has set NO_COLOR; a pipe gets none.
func TestColoursAreForTerminalsWithoutNoColor(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	for _, test := range []struct {
		when, noColor string
		out           io.Writer
		want          bool
	}{
		{"auto", "", terminal, true}, {"auto", "1", terminal, false}, {"auto", "", new(strings.Builder), false},
		{"always", "1", new(strings.Builder), true}, {"never", "", terminal, false},
	} {
		t.Setenv("NO_COLOR", test.noColor)
		if got, err := wantsColor(test.when, test.out); err != nil || got != test.want {
			t.Errorf("--color %s with NO_COLOR=%q: %v (%v)", test.when, test.noColor, got, err)
		}
	}
}
