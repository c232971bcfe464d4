// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"html"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/engine/fragment"
	"portcullis/images"
	"portcullis/internal/generatetest"
	"portcullis/internal/imagestest"
	"portcullis/rules/generate"
	"portcullis/rules/prove"
)

// nobodysKey is a public key whose private one nobody has.
const nobodysKey = "MCowBQYDK2VwAyEAPV55OZwPT2q7jA2bvJ3eVIp3YrRnXJ7f6mTxNgfRFLM="

// oneImage is the image of all manifests here.
type oneImage struct{ store *imagestest.Store }

func (o oneImage) Image(ctx context.Context, reference string) (*images.Image, error) {
	image, err := images.NewOpener([]images.Store{o.store}, images.Options{}).Image(ctx, "registry.example/web:1")
	if err == nil {
		image.Reference, err = images.ParseReference(reference)
	}
	return image, err
}

// policyOf makes the policy of a pod with these containers, and what else its specification has.
func policyOf(t *testing.T, spec, configs string, dropIns ...string) string {
	t.Helper()
	store := imagestest.NewStore()
	store.Add("registry.example/web:1", imagestest.WithFiles(images.Config{Entrypoint: []string{"/web"}, Env: []string{"PATH=/bin"}}, nil))
	text := "apiVersion: v1\nkind: Pod\nmetadata: {name: shop, namespace: shop}\nspec:\n  automountServiceAccountToken: false\n  " + spec + "\n" + configs
	m, err := generate.Parse("shop.yaml", []byte(text), generate.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	made, _, err := generatetest.Policies(m, generatetest.Settings(t, "guest-pull", dropIns...), oneImage{store})
	if err != nil || len(made) != 1 {
		t.Fatalf("%d policies (%v)", len(made), err)
	}
	file := filepath.Join(t.TempDir(), "pod.rego")
	writePolicy(t, made[0], file)
	return file
}

// TestEachPropertyHasAManifestWithItAndOneWithout: what is proven of a manifest's policy is a sentence of its report, and what is
// refuted is none.
func TestEachPropertyHasAManifestWithItAndOneWithout(t *testing.T) {
	prover, err := prove.New()
	if err != nil {
		t.Fatal(err)
	}
	const digest = "@sha256:" + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	const bound = `containers: [{name: web, image: "registry.example/web:1` + digest + `"}]`
	const config = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: shop}\ndata: {a: x}\n"
	const two = `containers:
  - {name: web, image: "registry.example/web:1", volumeMounts: [{name: conf, mountPath: /conf}]}
  - {name: side, image: "registry.example/web:1"%s}
  volumes: [{name: conf, configMap: {name: c}}]`
	for _, test := range []struct {
		property, sentence       string
		has, hasConfigs, hasWith string
		lacks, lacksWith         string
		issuer                   bool // what takes it away is an issuer of fragments, of which there is no request
	}{
		{property: "no exec", sentence: "No command is executed in a container", has: bound,
			lacks: `containers: [{name: web, image: "registry.example/web:1", livenessProbe: {exec: {command: [ok]}}}]`},
		{property: "no stdin", sentence: "Nothing is written to the standard input", has: bound, lacks: `containers: [{name: web, image: "registry.example/web:1", stdin: true}]`},
		{property: "stdout closed", sentence: "What containers print does not reach the host.", has: bound, lacks: bound, lacksWith: "logs"},
		{property: "only images by digest", sentence: "Every container runs an image whose content the policy fixes", has: bound,
			lacks: `containers: [{name: web, image: "registry.example/web:1"}]`},
		{property: "no host-filled mount", sentence: "There is no volume into which the host puts files of its choice", has: bound,
			lacks: `containers: [{name: web, image: "registry.example/web:1", volumeMounts: [{name: v, mountPath: /v}]}]
  volumes: [{name: v, hostPath: {path: /srv}}]`},
		{property: "no privileged", sentence: "No container has CAP_SYS_ADMIN.", has: bound,
			lacks: `containers: [{name: web, image: "registry.example/web:1", securityContext: {privileged: true}}]`},
		{property: "container side cannot see volume conf", sentence: "Container side has no mount of volume conf,", has: strings.Replace(two, "%s", "", 1), hasConfigs: config,
			lacks: strings.Replace(two, "%s", ", volumeMounts: [{name: conf, mountPath: /conf}]", 1)},
		{property: "policy cannot change", sentence: "SetPolicy is denied once this policy rules.", has: bound, issuer: true},
		{property: "files of conf fixed", sentence: "Every file of volume conf,", has: strings.Replace(two, "%s", "", 1), hasConfigs: config, lacks: strings.Replace(two, "%s", "", 1)},
		{property: "order enforced", sentence: "Containers start in the manifest's order", has: bound, hasWith: "ordered",
			lacks: `containers: [{name: web, image: "registry.example/web:1"}]
  initContainers: [{name: first, image: "registry.example/web:1"}]`, lacksWith: "unordered"},
	} {
		t.Run(test.property, func(t *testing.T) {
			with := func(name string) []string {
				if name == "" {
					return nil
				}
				return []string{name}
			}
			judge := func(file string, want prove.Verdict) {
				t.Helper()
				policy := loaded(t, prover, file)
				property, err := prove.ParseProperty(test.property)
				if err != nil {
					t.Fatal(err)
				}
				if r, err := prover.Holds(t.Context(), policy, property); err != nil || r.Verdict != want || r.Note != "" {
					t.Errorf("%+v (%v), want %s", r, err, want)
				}
				all, err := prover.Properties(t.Context(), policy)
				if err != nil {
					t.Fatal(err)
				}
				if said := strings.Join(meanings(all), "\n"); strings.Contains(said, test.sentence) != (want == prove.Proven) {
					t.Errorf("the report says:\n%s", said)
				}
			}
			judge(policyOf(t, test.has, test.hasConfigs, with(test.hasWith)...), prove.Proven)
			if test.issuer {
				file := policyOf(t, test.has, test.hasConfigs)
				p := loaded(t, prover, file).Data
				p.Issuers = []fragment.Issuer{{Feed: "shop", Key: nobodysKey, May: []fragment.May{{Path: "containers.web.args"}}}}
				writePolicy(t, p, file)
				judge(file, prove.Unknown)
			} else {
				judge(policyOf(t, test.lacks, "", with(test.lacksWith)...), prove.Refuted)
			}
		})
	}
}

func loaded(t *testing.T, prover *prove.Prover, file string) *prove.Policy {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := prover.Load(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(policy.Close)
	return policy
}

func TestTheReportHasWhatIsProven(t *testing.T) {
	file := policyOf(t, `containers: [{name: web, image: "registry.example/web:1"}]`, "")
	page := file + ".html"
	must(t, "report", "--policy", file, "-o", page)
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, sentence := range []string{"What containers print does not reach the host.", "No container has CAP_SYS_ADMIN."} {
		if !strings.Contains(html.UnescapeString(string(text)), sentence) {
			t.Errorf("the report does not say %q", sentence)
		}
	}
}

func TestAProofOfWhatIsNotThereSaysSo(t *testing.T) {
	file := policyOf(t, `containers: [{name: web, image: "registry.example/web:1"}]`, "")
	for property, says := range map[string]string{
		"container wep cannot see volume data": "there is no container wep",
		"container web cannot see volume data": "no container has a volume data",
		"files of conf fixed":                  "no container has a volume conf",
	} {
		if stdout, _, code := policyctl("prove", file, property); code != exitOK || !strings.Contains(stdout, "note: "+says+" in the policy") {
			t.Errorf("%s: exit code %d\n%s", property, code, stdout)
		}
	}
}
