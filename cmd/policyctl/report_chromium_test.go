// SPDX-License-Identifier: Apache-2.0

//go:build chromium

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/rules"
)

// The pages of report, opened in a real browser: `make report-check` brings it, the program that drives it, and axe.
func TestReportInChromium(t *testing.T) {
	out := os.Getenv("REPORT_DIR")
	if err := os.MkdirAll(out, 0o755); err != nil {
		t.Fatal(err)
	}
	var pages []string
	report := func(name string, args ...string) {
		page := filepath.Join(out, name+".html")
		must(t, append([]string{"report", "-o", page}, args...)...)
		pages = append(pages, page)
	}
	dir := t.TempDir()
	policy, recording := filepath.Join(dir, "shop.rego"), filepath.Join(dir, "policy.jsonl")
	writePolicy(t, shop(t), policy)
	writeRecording(t, life(shop(t)), recording)
	report("shop", "--policy", policy, "--trace", recording)

	large := shop(t)
	for i := range 40 - len(large.Containers) {
		c := *large.Containers["web"]
		large.Containers[fmt.Sprintf("web-%d", i)] = &c
	}
	policy = filepath.Join(dir, "large.rego")
	writePolicy(t, large, policy)
	writeRecording(t, life(large), recording)
	report("large", "--policy", policy, "--trace", recording)
	info, err := os.Stat(pages[1])
	if err != nil {
		t.Fatal(err)
	}
	if t.Logf("40 containers: %d bytes", info.Size()); info.Size() >= 500_000 {
		t.Errorf("a page of 40 containers has %d bytes, want less than 500 kB", info.Size())
	}

	other, err := rules.Default("allow-all-except-exec")
	if err != nil {
		t.Fatal(err)
	}
	policy = filepath.Join(dir, "other.rego")
	if err := os.WriteFile(policy, []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	report("other", "--policy", policy)
	for _, p := range preparedManifests {
		report(p.name, "--policy", policyOf(t, p.spec, "", p.dropIns...))
	}

	said, err := checkPages(out, pages...)
	t.Logf("\n%s", said)
	if err != nil {
		t.Fatal(err)
	}
}

func checkPages(out string, pages ...string) (string, error) {
	check := exec.Command(os.Getenv("REPORT_CHECK"), append([]string{"-axe", os.Getenv("REPORT_AXE"), "-out", out}, pages...)...)
	said, err := check.CombinedOutput()
	return string(said), err
}

// The check finds what it is there for.
func TestBadPageInChromium(t *testing.T) {
	dir := t.TempDir()
	page := filepath.Join(dir, "bad.html")
	text := `<!DOCTYPE html><title>x</title><img src="other.png"><p style="width:2000px;color:#ccc;background:#fff">text</p><ul class="warnings" style="margin-top:2000px"><li class="grave">x</li></ul><script>console.error("x")</script>`
	if err := os.WriteFile(page, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	said, err := checkPages(dir, page)
	if err == nil {
		t.Fatal("a bad page passes")
	}
	for _, fault := range []string{"image-alt", "color-contrast", "html-has-lang", "px wide", "holds 1 scripts", "console error", "loads file://", "1 of its gravest warnings below the first screen", "the first Tab goes to"} {
		if !strings.Contains(said, fault) {
			t.Errorf("the check does not say %q:\n%s", fault, said)
		}
	}
}
