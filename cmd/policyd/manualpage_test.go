// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The manual page, the page in docs and the units say what the program says: its flags, its exit codes, and no manual of anything else.
func TestTheManualSaysWhatTheProgramSays(t *testing.T) {
	page := readPage(t, "../../images/rootfs/policyd.8")
	page = regexp.MustCompile(`\\f[BIR]`).ReplaceAllString(strings.ReplaceAll(page, `\-`, "-"), "")
	flag := regexp.MustCompile(`(?m)^  (--[a-z-]+)`)
	documented := regexp.MustCompile(`(?m)^(--[a-z-]+)`)
	var says, manual []string
	for _, m := range flag.FindAllStringSubmatch(usage, -1) {
		says = append(says, m[1])
	}
	for _, m := range documented.FindAllStringSubmatch(page, -1) {
		manual = append(manual, m[1])
	}
	slices.Sort(says)
	slices.Sort(manual)
	if len(says) < 10 || !slices.Equal(says, manual) {
		t.Errorf("--help has %v, the manual page %v", says, manual)
	}
	for _, name := range says {
		if _, err := parseFlags([]string{name + "=true"}); err != nil && strings.Contains(err.Error(), "not defined") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, codes, _ := strings.Cut(strings.TrimSpace(usage), "Exit codes: ")
	flat := func(text string) string { return strings.Join(strings.Fields(text), " ") }
	for _, text := range []string{page, readPage(t, "../../docs/policyd.md")} {
		if codes == "" || !strings.Contains(flat(text), codes) {
			t.Errorf("%.40q does not have the exit codes %q", text, codes)
		}
	}
}

func TestUnitsNameNoManualOfAnotherProject(t *testing.T) {
	unit := readPage(t, "../../images/rootfs/systemd/policyd.service")
	named := regexp.MustCompile(`(?m)^Documentation=(.*)$`).FindAllStringSubmatch(unit, -1)
	if len(named) != 1 || named[0][1] != "man:policyd(8)" {
		t.Errorf("the unit names %v, want man:policyd(8)", named)
	}
}

func readPage(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
