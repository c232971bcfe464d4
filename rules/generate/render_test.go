// SPDX-License-Identifier: Apache-2.0

package generate_test

import (
	"context"
	"math/rand"
	"strings"
	"testing"

	"portcullis/hostdata/initdata"
	"portcullis/internal/generatetest"
	"portcullis/rules/generate"
	"portcullis/rules/settings"
)

// render makes the one policy of a manifest's text and renders it.
func render(t *testing.T, text string) (*generate.Rendered, []*generate.Finding, error) {
	t.Helper()
	m, err := generate.Parse("pod.yaml", []byte(text), generate.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	g := generate.New(generatetest.Settings(t, settings.DefaultPlatform), generatetest.Images(t, "testdata/images.json"), nil, generate.Options{})
	p := m.Pods()[0]
	made, _, err := g.Policy(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	return g.Render(p, made, generate.Output{})
}

// kubectl apply keeps a second copy of what is in the annotations, and Kubernetes bounds them all together.
func TestAnnotationsThatKubernetesRefusesAreRefused(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	noise := func(n int) string {
		var b strings.Builder
		for b.Len() < n {
			b.WriteByte("abcdefghijklmnopqrstuvwxyz0123456789"[random.Intn(36)])
		}
		return b.String()
	}
	pod := func(annotation, variable int) string {
		return "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  annotations: {note: \"" + noise(annotation) + "\"}\nspec:\n" +
			"  containers:\n  - name: a\n    image: busybox:1.37\n    env: [{name: A, value: \"" + noise(variable) + "\"}]\n"
	}
	for _, test := range []struct {
		name                 string
		annotation, variable int
		warned, refused      bool
	}{
		{"a usual pod", 10, 10, false, false},
		{"a large policy", 10, 150_000, true, false},
		{"large annotations of its own", 60_000, 40_000, true, false},
		{"a policy that is too large", 10, 300_000, false, true},
		{"annotations that leave no room", 130_000, 100_000, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, warnings, err := render(t, pod(test.annotation, test.variable))
			if warned := len(warnings) > 0; warned != test.warned {
				t.Errorf("warnings are %v", warnings)
			}
			if _, only := generate.Findings(err); (err != nil) != test.refused || !only {
				t.Errorf("error is %v", err)
			}
		})
	}
}

// The annotation of older releases is read, and carries the same document in the form that it had.
func TestOlderInitdataIsKeptInStep(t *testing.T) {
	doc, err := initdata.New("sha384", map[string]string{"aa.toml": "[token]\n"})
	if err != nil {
		t.Fatal(err)
	}
	packed, err := doc.Annotation()
	if err != nil {
		t.Fatal(err)
	}
	pod := "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  annotations: {ANNOTATIONS}\nspec:\n  containers: [{name: a, image: \"busybox:1.37\"}]\n"
	for name, older := range map[string]string{"compressed": packed, "plain": initdata.EncodePolicy(doc.Bytes())} {
		t.Run(name, func(t *testing.T) {
			made, warnings, err := render(t, strings.Replace(pod, "ANNOTATIONS", initdata.OlderAnnotation+": "+older, 1))
			if err != nil || len(warnings) != 1 {
				t.Fatalf("%v, warnings %v", err, warnings)
			}
			one, plain, err1 := initdata.ParseOlder(made.Older)
			other, err2 := initdata.ParseAnnotation(made.Value)
			if err1 != nil || err2 != nil || string(one.Bytes()) != string(other.Bytes()) || plain != (name == "plain") {
				t.Fatalf("not in step: %v, %v", err1, err2)
			}
			if kept, _ := one.Value("aa.toml"); kept != "[token]\n" || one.Algorithm() != "sha384" {
				t.Errorf("kept %q, %s", kept, one.Algorithm())
			}
		})
	}
	made, _, err := render(t, strings.Replace(pod, "ANNOTATIONS", initdata.OlderAnnotation+": "+packed+", "+initdata.Annotation+": "+packed, 1))
	if err != nil || made.Older != made.Value {
		t.Errorf("with both: %v", err)
	}
}
