// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestEveryVerbHasAManualPage(t *testing.T) {
	dir := t.TempDir()
	must(t, "man", dir)
	root := newRoot(stdio{strings.NewReader(""), os.Stdout, os.Stderr})
	for _, verb := range root.Commands() {
		if verb.Hidden {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, "policyctl-"+verb.Name()+".1"))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, words := range []string{".TH \"POLICYCTL\" \"1\" \"Jan 1970\"", "\\fBpolicyctl " + verb.Name()} {
			if !strings.Contains(strings.ReplaceAll(string(text), "\\-", "-"), words) {
				t.Errorf("the page of %s lacks %q", verb.Name(), words)
			}
		}
	}
}

func TestShellsCompleteVerbsFlagsAndValues(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want []string
	}{
		{"verbs", []string{"re"}, []string{"replay", "report"}},
		{"flags", []string{"replay", "--s"}, []string{"--save-tests", "--skip-broken", "--split"}},
		{"values", []string{"explain", "--color", ""}, []string{"auto", "always", "never"}},
		{"messages", []string{"input", "CreateCon"}, []string{"CreateContainerRequest"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for line := range strings.Lines(must(t, append([]string{"__complete"}, test.args...)...)) {
				if word, _, _ := strings.Cut(strings.TrimSpace(line), "\t"); !strings.HasPrefix(word, ":") {
					got = append(got, word)
				}
			}
			for _, want := range test.want {
				if !slices.Contains(got, want) {
					t.Errorf("%v are offered, want %s", got, want)
				}
			}
		})
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if script := must(t, "completion", shell); len(script) < 1000 {
			t.Errorf("%s gets %q", shell, script)
		}
	}
	bash := exec.Command("bash", "-n")
	bash.Stdin = strings.NewReader(must(t, "completion", "bash"))
	if out, err := bash.CombinedOutput(); err != nil {
		t.Errorf("bash does not read its completions: %v\n%s", err, out)
	}
}
