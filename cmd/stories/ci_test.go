// SPDX-License-Identifier: Apache-2.0

package stories

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// action is the part of a composite action that is run here.
type action struct {
	Inputs map[string]struct{ Default string }
	Runs   struct {
		Using string
		Steps []struct {
			Name, Shell, Run string
			Env              map[string]string
		}
	}
}

var input = regexp.MustCompile(`\$\{\{ inputs\.(\w+) \}\}`)

// TestTheActionSaysYesAndNo runs the steps of action.yml as a runner does, on a right manifest, a stale one and one without a policy.
func TestTheActionSaysYesAndNo(t *testing.T) {
	var a action
	read(t, "action.yml", &a)
	if a.Runs.Using != "composite" || len(a.Runs.Steps) < 2 {
		t.Fatalf("it is %q with %d steps", a.Runs.Using, len(a.Runs.Steps))
	}
	source := absolute(t)
	temp, dir := t.TempDir(), manifests(t)
	built := false
	for _, tt := range []struct {
		inputs map[string]string
		passes bool
		says   string
	}{
		{map[string]string{"paths": "right.yaml"}, true, "OK right.yaml: Pod shop"},
		{map[string]string{"paths": "right.yaml stale.yaml"}, false, "STALE stale.yaml: Pod shop"},
		{map[string]string{}, false, "MISSING none.yaml: Pod shop"},
		{map[string]string{"paths": "logs.yaml", "settings": "logs"}, true, "OK logs.yaml"},
		{map[string]string{"paths": "logs.yaml", "settings": "logs", "floor": "floor.toml"}, false, "LOOSER logs.yaml"},
	} {
		passed, said := true, ""
		for i, step := range a.Runs.Steps {
			if built && i == 0 {
				continue // the tools are there
			}
			cmd := exec.Command(step.Shell, "--noprofile", "--norc", "-eo", "pipefail", "-c", step.Run)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "GITHUB_ACTION_PATH="+source, "RUNNER_TEMP="+temp)
			for name, value := range step.Env {
				cmd.Env = append(cmd.Env, name+"="+input.ReplaceAllStringFunc(value, func(text string) string {
					key := input.FindStringSubmatch(text)[1]
					in, ok := a.Inputs[key]
					if !ok {
						t.Fatalf("there is no input %s", key)
					}
					if given, ok := tt.inputs[key]; ok {
						return given
					}
					return in.Default
				}))
			}
			out, err := cmd.CombinedOutput()
			said += string(out)
			if err != nil {
				passed = false
				break
			}
			built = true
		}
		if passed != tt.passes || !strings.Contains(said, tt.says) {
			t.Errorf("%q: passed %t: %s", tt.inputs, passed, said)
		}
	}
}

// TestTheHooksSayYesAndNo runs the entries of the hooks with files as pre-commit does.
func TestTheHooksSayYesAndNo(t *testing.T) {
	var hooks []struct {
		ID, Name, Entry, Language string
		Types                     []string `json:"types_or"`
	}
	read(t, ".pre-commit-hooks.yaml", &hooks)
	dir, bin, root := manifests(t), t.TempDir(), absolute(t)
	if out, err := exec.Command("make", "-s", "-C", root, "build", "BIN="+bin, "VERSION=hook").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if len(hooks) != 2 {
		t.Fatalf("%d hooks", len(hooks))
	}
	for _, h := range hooks {
		if h.Language != "golang" || len(h.Types) == 0 {
			t.Errorf("%s: %s, %q", h.ID, h.Language, h.Types)
		}
		for file, passes := range map[string]bool{"right.yaml": true, "stale.yaml": false, "none.yaml": false} {
			words := strings.Fields(h.Entry)
			args := words[1:]
			if words[0] == "genpolicy" {
				args = append(args, "--oci-layout", filepath.Join(root, "docs/operators/images")) // as a user's args
			}
			cmd := exec.Command(filepath.Join(bin, words[0]), append(args, file)...)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); (err == nil) != passes {
				t.Errorf("%s of %s: %v %s", h.ID, file, err, out)
			}
		}
	}
}

// absolute is the project's folder.
func absolute(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
}

// manifests are the shop's: with a policy, with one and changed, without, and with logs open.
func manifests(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"operators", "admission"} {
		if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "docs", name))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"webhook.yaml", "cat.toml"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	genpolicy := filepath.Join(t.TempDir(), "genpolicy")
	if out, err := exec.Command("go", "build", "-o", genpolicy, "../genpolicy").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	plain, err := os.ReadFile(filepath.Join(dir, "shop.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "shop.yaml"), filepath.Join(dir, "none.yaml")); err != nil {
		t.Fatal(err)
	}
	policy := func(args ...string) []byte {
		cmd := exec.Command(genpolicy, append(args, "--oci-layout", "images")...)
		cmd.Dir, cmd.Stdin = dir, bytes.NewReader(plain)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	right, logs := policy(), policy("-j", "logs")
	if err := os.RemoveAll(filepath.Join(dir, "images")); err != nil { // whose JSON is no manifest
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"right.yaml": right, "stale.yaml": bytes.Replace(right, []byte("--listen=:8080"), []byte("--listen=:9090"), 1),
		"logs.yaml": logs,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
