// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each attack has a defence that can be taken away, and each mutant takes one of them away.
func TestEveryAttackNamesAMutant(t *testing.T) {
	text, err := os.ReadFile("../../docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile("../../.ci/mutants.txt")
	if err != nil {
		t.Fatal(err)
	}
	mutants := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^== (\S+)$`).FindAllStringSubmatch(string(list), -1) {
		mutants[m[1]] = false
	}
	if len(mutants) < 60 {
		t.Errorf("%d mutants, want 60", len(mutants))
	}
	attacks, _, _ := strings.Cut(string(text), "## Test matrix")
	name := regexp.MustCompile("`([a-z0-9-]+)`")
	for line := range strings.Lines(attacks) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| # |") || strings.HasPrefix(line, "| attack |") {
			continue
		}
		_, named, _ := strings.Cut(line, "; mutant")
		found := name.FindAllStringSubmatch(named, -1)
		if len(found) == 0 {
			t.Errorf("no mutant is named: %.80s", line)
		}
		for _, m := range found {
			if _, ok := mutants[m[1]]; !ok {
				t.Errorf("there is no mutant %s", m[1])
			}
			mutants[m[1]] = true
		}
	}
	for m, named := range mutants {
		if !named {
			t.Errorf("no attack names the mutant %s", m)
		}
	}
}

// TestThreatModelNamesTestsThatExist: a defence whose test was renamed or removed is held by nothing.
func TestThreatModelNamesTestsThatExist(t *testing.T) {
	text, err := os.ReadFile("../../docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	dirs := map[string]string{"gate": "engine/gate", "binding": "engine/binding", "policyd": "cmd/policyd", "policyctl": "cmd/policyctl"}
	sources := map[string]string{}
	source := func(dir string) string {
		if _, ok := sources[dir]; !ok {
			var b strings.Builder
			paths, _ := filepath.Glob(filepath.Join("../..", dir, "*_test.go"))
			for _, path := range paths {
				content, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				b.Write(content)
			}
			sources[dir] = b.String()
		}
		return sources[dir]
	}
	// A package is named once, and then one or several of its tests.
	token := regexp.MustCompile("([a-z]+(?:/[a-z]+)*) `(?:Test|Fuzz)|`((?:Test|Fuzz)[A-Za-z0-9]+)`")
	attacks := regexp.MustCompile(`(?m)^\| \d+ \|`).FindAll(text, -1)
	if len(attacks) != 38 {
		t.Errorf("%d attacks, want 38", len(attacks))
	}
	named := 0
	for _, line := range strings.Split(string(text), "\n") {
		dir := ""
		for at := 0; ; {
			m := token.FindStringSubmatchIndex(line[at:])
			if m == nil {
				break
			}
			if m[2] >= 0 {
				if dir = line[at+m[2] : at+m[3]]; dirs[dir] != "" {
					dir = dirs[dir]
				}
				at += m[3]
				continue
			}
			name := line[at+m[4] : at+m[5]]
			at += m[1]
			named++
			if !strings.Contains(source(dir), "func "+name+"(") {
				t.Errorf("%s has no %s", dir, name)
			}
		}
	}
	if named < 90 {
		t.Errorf("only %d tests are named", named)
	}
}
