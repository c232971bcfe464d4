// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"portcullis/engine/policytext"
	"portcullis/hostdata/initdata"
	"portcullis/internal/generatetest"
	"portcullis/rules"
	"portcullis/rules/generate"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"genpolicy": main})
}

// writeLayout writes an OCI layout of images with known facts.
func writeLayout(t testing.TB, dir string) {
	t.Helper()
	store := generatetest.Store(t, "../../rules/generate/testdata/images.json")
	if err := store.WriteLayout(dir); err != nil {
		t.Fatal(err)
	}
}

func TestScripts(t *testing.T) {
	dir := t.TempDir()
	writeLayout(t, dir)
	signed, err := filepath.Abs("../../images/signature/testdata")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("LAYOUT", dir)
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("SIGNED", signed)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"policy": policyOf, "strip": strip},
	})
}

// policyOf writes the policy that the annotation in a manifest carries to a file:
// policy MANIFEST FILE. Its initdata goes to FILE.toml.
func policyOf(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: policy MANIFEST FILE")
	}
	m, err := generate.Parse(args[0], []byte(ts.ReadFile(args[0])), generate.ReadOptions{IgnoreUnknown: true})
	ts.Check(err)
	for _, p := range m.Pods() {
		if value := p.Annotation(initdata.Annotation); value != "" {
			doc, err := initdata.ParseAnnotation(value)
			ts.Check(err)
			text, ok := doc.Value(initdata.PolicyKey)
			if !ok {
				ts.Fatalf("no %s in the initdata", initdata.PolicyKey)
			}
			ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o644))
			ts.Check(os.WriteFile(ts.MkAbs(args[1]+".toml"), doc.Bytes(), 0o644))
			return
		}
		if value := p.Annotation(initdata.PolicyAnnotation); value != "" {
			text, err := initdata.ParsePolicy(value)
			ts.Check(err)
			ts.Check(os.WriteFile(ts.MkAbs(args[1]), text, 0o644))
			return
		}
	}
	ts.Fatalf("%s has no policy", args[0])
}

// strip takes what genpolicy inserted out of a manifest again: strip MANIFEST FILE.
func strip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: strip MANIFEST FILE")
	}
	var out strings.Builder
	for line := range strings.SplitAfterSeq(ts.ReadFile(args[0]), "\n") {
		if !strings.Contains(line, initdata.Annotation) && !strings.Contains(line, initdata.PolicyAnnotation) {
			out.WriteString(line)
		}
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(out.String()), 0o644))
}

// call runs genpolicy in this process.
func call(t testing.TB, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, stdio{strings.NewReader(stdin), &out, &errs})
	return code, out.String(), errs.String()
}

const smallPod = "apiVersion: v1\nkind: Pod\nmetadata: {name: small}\nspec:\n  containers:\n  - {name: app, image: \"ghcr.io/acme/app:v2\"}\n"

func TestAnnotationsOfAOneContainerPodAreSmall(t *testing.T) {
	dir := t.TempDir()
	writeLayout(t, dir)
	for _, c := range []struct {
		name string
		args []string
		most int
	}{
		{"compact", []string{"--compact"}, 4000},
		{"full", nil, 14500},
	} {
		code, out, errs := call(t, smallPod, append(c.args, "-b", "--oci-layout", dir)...)
		if code != exitDone {
			t.Fatalf("%s: exit %d: %s", c.name, code, errs)
		}
		t.Logf("%s: %d characters", c.name, len(out))
		if len(out) > c.most {
			t.Errorf("%s annotation has %d characters, want at most %d", c.name, len(out), c.most)
		}
	}
}

func TestBothFormsCarryTheSamePolicy(t *testing.T) {
	dir := t.TempDir()
	writeLayout(t, dir)
	var texts [2][]byte
	for i, args := range [][]string{{"-r"}, {"-r", "--compact"}} {
		code, out, errs := call(t, smallPod, append(args, "--oci-layout", dir)...)
		if code != exitDone {
			t.Fatalf("exit %d: %s", code, errs)
		}
		doc, err := policytext.Split([]byte(out))
		if err != nil {
			t.Fatal(err)
		}
		if doc.Digest != policytext.DigestOf([]byte(rules.Text())) {
			t.Errorf("rules have digest %s, want %s", doc.Digest, policytext.DigestOf([]byte(rules.Text())))
		}
		texts[i] = doc.Data
	}
	if !bytes.Equal(texts[0], texts[1]) {
		t.Error("policy_data differs between the forms")
	}
}

func BenchmarkTenContainersFromALayout(b *testing.B) {
	dir := b.TempDir()
	writeLayout(b, dir)
	var pod strings.Builder
	pod.WriteString("apiVersion: v1\nkind: Pod\nmetadata: {name: ten}\nspec:\n  containers:\n")
	for _, n := range strings.Fields("a b c d e f g h i j") {
		pod.WriteString("  - {name: " + n + ", image: \"ghcr.io/acme/app:v2\"}\n")
	}
	path := filepath.Join(b.TempDir(), "pod.yaml")
	for b.Loop() {
		if err := os.WriteFile(path, []byte(pod.String()), 0o644); err != nil {
			b.Fatal(err)
		}
		if code, _, errs := call(b, "", "-y", path, "--oci-layout", dir); code != exitDone {
			b.Fatal(errs)
		}
	}
}

func TestExitCodesTellRefusalsFromFailures(t *testing.T) {
	dir := t.TempDir()
	writeLayout(t, dir)
	missing := strings.ReplaceAll(smallPod, "ghcr.io/acme/app:v2", "localhost:1/none:v1")
	for _, c := range []struct {
		promise, stdin string
		args           []string
		want           int
	}{
		{"a policy was made", smallPod, nil, exitDone},
		{"nothing to do is no failure", "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n", nil, exitDone},
		{"a refused manifest", strings.Replace(smallPod, "spec:", "spec:\n  hostPID: true", 1), nil, exitRefused},
		{"a tag where digests are required", smallPod, []string{"--require-digests"}, exitRefused},
		{"an unknown flag", smallPod, []string{"--nonsense"}, exitUsage},
		{"an unknown verb", smallPod, []string{"nonsense"}, exitUsage},
		{"an image that cannot be had", missing, []string{"--insecure-registry", "localhost:1"}, exitFailed},
		{"a file that is not there", "", []string{"-y", "/nonexistent/pod.yaml"}, exitFailed},
		{"a layout that is not there", smallPod, []string{"--oci-layout", "/nonexistent"}, exitFailed},
	} {
		code, _, errs := call(t, c.stdin, append([]string{"--oci-layout", dir}, c.args...)...)
		if code != c.want {
			t.Errorf("%s: exit %d, want %d: %s", c.promise, code, c.want, errs)
		}
		if code != exitDone && strings.Count(errs, "genpolicy: ")-strings.Count(errs, "genpolicy: warning: ") != 1 {
			t.Errorf("%s: want one line, got %q", c.promise, errs)
		}
	}
}
