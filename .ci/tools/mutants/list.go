// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// mutant is one change and the test that must notice it.
type mutant struct {
	name      string
	file      string // below the project's root
	pkg, test string // as go test takes them
	hunks     []hunk
}

// hunk is lines and what replaces them.
type hunk struct{ old, new []string }

var nameForm = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// read reads the list of mutants.
func read(path string) ([]mutant, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var all []mutant
	seen := map[string]bool{}
	for i, line := range strings.Split(string(text), "\n") {
		if name, ok := strings.CutPrefix(line, "== "); ok {
			if seen[name] || !nameForm.MatchString(name) {
				return nil, fmt.Errorf("%s:%d: the name %q is there twice or has other characters than a-z, 0-9 and -", path, i+1, name)
			}
			seen[name] = true
			all = append(all, mutant{name: name})
			continue
		}
		if line == "" || line[0] == '#' {
			continue
		}
		if len(all) == 0 || !all[len(all)-1].add(line) {
			return nil, fmt.Errorf("%s:%d: not a line of a mutant: %s", path, i+1, line)
		}
	}
	for _, m := range all {
		if m.file == "" || m.test == "" || len(m.hunks) == 0 {
			return nil, fmt.Errorf("%s: mutant %s lacks its file, its test or the lines that it replaces", path, m.name)
		}
	}
	return all, nil
}

// add takes one line of the mutant's block.
func (m *mutant) add(line string) bool {
	if file, ok := strings.CutPrefix(line, "file: "); ok {
		m.file = file
		return true
	}
	if test, ok := strings.CutPrefix(line, "test: "); ok {
		m.pkg, m.test, ok = strings.Cut(test, " ")
		return ok
	}
	switch line[0] {
	case '-':
		if n := len(m.hunks); n == 0 || len(m.hunks[n-1].new) > 0 {
			m.hunks = append(m.hunks, hunk{})
		}
		h := &m.hunks[len(m.hunks)-1]
		h.old = append(h.old, line[1:])
	case '+':
		if len(m.hunks) == 0 {
			return false
		}
		h := &m.hunks[len(m.hunks)-1]
		h.new = append(h.new, line[1:])
	default:
		return false
	}
	return true
}

// apply replaces the lines, which must be there exactly once.
func (m *mutant) apply(text string) (string, error) {
	text = "\n" + text // so that each line follows the end of another
	for _, h := range m.hunks {
		old, new := "\n"+strings.Join(h.old, "\n")+"\n", "\n"
		if len(h.new) > 0 {
			new = "\n" + strings.Join(h.new, "\n") + "\n"
		}
		if n := strings.Count(text, old); n != 1 {
			return "", fmt.Errorf("%q is %d times in %s, not once: the code has changed, so must the mutant", h.old[0], n, m.file)
		}
		text = strings.Replace(text, old, new, 1)
	}
	return text[1:], nil
}

// changed is the text of the mutant's file below root, with the change.
func (m *mutant) changed(root string) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, m.file))
	if err != nil {
		return "", err
	}
	return m.apply(string(text))
}

// top is the name of the test without subtests.
func (m *mutant) top() string {
	top, _, _ := strings.Cut(m.test, "/")
	return top
}

// pattern is what -run takes for exactly this test.
func (m *mutant) pattern() string {
	parts := strings.Split(m.test, "/")
	for i, p := range parts {
		parts[i] = "^" + p + "$"
	}
	return strings.Join(parts, "/")
}

// built says whether the go command is all that reads the mutant's file. It embeds policies too, but tests read them from the disk.
func (m mutant) built() bool { return filepath.Ext(m.file) == ".go" }
