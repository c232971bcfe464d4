// SPDX-License-Identifier: Apache-2.0

package version_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"portcullis/internal/version"
	"portcullis/rules"
	"portcullis/rules/policydata"
)

// What is printed is what compact policies name.
func TestHeldRulesAreNamedAsPoliciesNameThem(t *testing.T) {
	compact, err := new(policydata.Policy).Compact(rules.Text())
	if err != nil {
		t.Fatal(err)
	}
	if got := version.Rules()[0]; !strings.Contains(string(compact), `"`+got+`"`) {
		t.Errorf("rules %s, policies name them otherwise: %.150s", got, compact)
	}
}

func TestEveryProgramSaysItsBuildAndItsRules(t *testing.T) {
	dir := t.TempDir()
	module := strings.TrimSuffix(command(t, "go", "list", "."), "/internal/version\n")
	flags := "-X " + module + "/internal/version.described=v1.2.3-4-gabcdef0"
	for _, name := range []string{"policyd", "genpolicy", "policyctl"} {
		path := filepath.Join(dir, name)
		command(t, "go", "build", "-tags", "nethttpomithttp2", "-ldflags", flags, "-o", path, "../../cmd/"+name)
		got := command(t, path, "--version")
		want := regexp.MustCompile(`^` + name + ` v1\.2\.3-4-gabcdef0\b.*\n` +
			`rules ` + version.Rules()[0] + `\nupstream rules ` + version.Rules()[1] + `\n`)
		if !want.MatchString(got) {
			t.Errorf("%s --version:\n%s", name, got)
		}
	}
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return string(out)
}
