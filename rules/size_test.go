// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"portcullis/hostdata/initdata"
	"portcullis/rules/generate"
	"portcullis/rules/policydata"
)

// The annotation of a usual pod, base64(gzip(initdata)), must leave room for
// everything else in the 256 KiB that Kubernetes allows for all annotations.
func TestAnnotationIsSmall(t *testing.T) {
	p := onePod(t)
	web := p.Containers["web"] // with a digest that does not compress
	web.Image.Digest = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("image")))
	web.Image.Source = "registry.example/web@" + web.Image.Digest
	web.OCI.Annotations.ImageName = web.Image.Source
	for form, limit := range map[string]int{"full": 14500, "compact": 4300} {
		size := len(annotation(t, p, generate.Output{Compact: form == "compact"}))
		t.Logf("%s: %d characters", form, size)
		if size >= limit {
			t.Errorf("%s: %d characters, want under %d", form, size, limit)
		}
	}
}

// annotation renders a policy as genpolicy does.
func annotation(t *testing.T, p *policydata.Policy, o generate.Output) string {
	t.Helper()
	_, platform := load(t, "guest-pull")
	pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: web, image: registry.example/web}]}\n"
	manifest, err := generate.Parse("web.yaml", []byte(pod), generate.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	made, _, err := generate.New(platform, nil, nil, generate.Options{}).Render(manifest.Pods()[0], p, o)
	if err != nil {
		t.Fatal(err)
	}
	if made.Annotation != initdata.Annotation {
		t.Fatalf("the policy is in %s", made.Annotation)
	}
	return made.Value
}
