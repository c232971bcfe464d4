// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"portcullis/images"
	"portcullis/internal/imagestest"
	"portcullis/rules"
)

var update = flag.Bool("update", false, "rewrite the outputs in docs/operators.md")

const operatorsPage = "../../docs/operators.md"

// The page for operators shows what its commands print, and what a guest answers to the requests of its cases.
func TestTheOperatorsPageIsFresh(t *testing.T) {
	dir := t.TempDir()
	operatorsFiles(t, dir)
	page, err := os.ReadFile(operatorsPage)
	if err != nil {
		t.Fatal(err)
	}
	fresh := console.ReplaceAllStringFunc(string(page), func(block string) string { return runConsole(t, dir, block) })
	for _, name := range []string{"exec", "env", "image", "mount", "nopolicy"} {
		if fresh, err = answerOf(fresh, dir, name); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(fresh, "correct-horse") {
		t.Error("the page shows the secret")
	}
	if *update {
		if err := os.WriteFile(operatorsPage, []byte(fresh), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	was, is := strings.Split(string(page), "\n"), strings.Split(fresh, "\n")
	for i := range min(len(was), len(is)) {
		if was[i] != is[i] && !*update {
			t.Fatalf("line %d of docs/operators.md is\n%s\nbut the command prints\n%s\ngo test ./cmd/policyctl -run Operators -update rewrites it", i+1, was[i], is[i])
		}
	}
	if len(was) != len(is) && !*update {
		t.Fatal("docs/operators.md is not what its commands print; go test ./cmd/policyctl -run Operators -update rewrites it")
	}
}

var console = regexp.MustCompile("(?s)```console\n.*?```")

// runConsole runs the commands of a block as a shell does, and gives the block with what they print.
func runConsole(t *testing.T, dir, block string) string {
	t.Helper()
	out := "```console\n"
	for line := range strings.Lines(block) {
		command, ok := strings.CutPrefix(strings.TrimSpace(line), "$ ")
		if !ok {
			continue
		}
		shell := exec.Command("sh", "-c", command)
		shell.Dir = dir
		shell.Env = append(os.Environ(), "PATH="+dir+"/bin:"+os.Getenv("PATH"))
		said, err := shell.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != exitNo) {
			t.Fatalf("%s: %v\n%s", command, err, said)
		}
		out += "$ " + command + "\n" + string(said)
	}
	return out + "```"
}

// answerOf puts what the guest answers to the last request of a case before the first command that explains it.
func answerOf(page, dir, name string) (string, error) {
	policy := "shop.rego"
	if name == "nopolicy" {
		policy = "default-policy.rego"
	}
	replay := exec.Command("policyctl", "replay", "--policy", policy, name+".jsonl")
	replay.Dir = dir
	out, err := replay.Output()
	if err != nil {
		return "", err
	}
	answer := ""
	for line := range strings.Lines(string(out)) {
		if denied, ok := strings.CutPrefix(line, "DENY "); ok && answer == "" {
			kind, reason, _ := strings.Cut(strings.TrimSpace(denied), ": ")
			answer = kind + " is blocked by policy: " + reason
		}
	}
	end := strings.Index(page, ".rego "+name+".jsonl\n")
	begin := strings.LastIndex(page[:max(end, 0)], "```text\n")
	if end < 0 || begin < 0 || answer == "" {
		return "", fmt.Errorf("the page has no answer for case %s", name)
	}
	begin += len("```text\n")
	length := strings.Index(page[begin:], "```")
	return page[:begin] + answer + "\n" + page[begin+length:], nil
}

// operatorsFiles makes what the page speaks of: the manifest with its image, and the guest's default policy.
func operatorsFiles(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"shop.yaml", "cat.toml"} {
		text, err := os.ReadFile(filepath.Join("../../docs/operators", name))
		if err != nil {
			t.Fatal(err)
		}
		writeText(t, filepath.Join(dir, name), string(text))
	}
	store := imagestest.NewStore()
	store.Add("registry.example/shop/web:1.4", imagestest.WithFiles(
		images.Config{Entrypoint: []string{"/bin/web"}, Env: []string{"PATH=/usr/bin:/bin"}}, map[string]string{"etc/passwd": "web:x:1000:1000::/:/bin/sh\n"}))
	if err := os.Mkdir(filepath.Join(dir, "images"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := store.WriteLayout(filepath.Join(dir, "images")); err != nil {
		t.Fatal(err)
	}
	text, err := rules.Default("deny-all-but-setpolicy")
	if err != nil {
		t.Fatal(err)
	}
	writeText(t, filepath.Join(dir, "default-policy.rego"), text)
	genpolicy := filepath.Join(dir, "bin", "genpolicy")
	if said, err := exec.Command("go", "build", "-o", genpolicy, "../genpolicy").CombinedOutput(); err != nil {
		t.Fatalf("build genpolicy: %v\n%s", err, said)
	}
}

func writeText(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
