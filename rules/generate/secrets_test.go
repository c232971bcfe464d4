// SPDX-License-Identifier: Apache-2.0

package generate_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"portcullis/internal/generatetest"
	"portcullis/rules/generate"
	"portcullis/rules/policydata"
	"portcullis/rules/settings"
)

const secretPod = `apiVersion: v1
kind: Pod
metadata: {name: a, namespace: shop}
spec:
  containers:
  - name: a
    image: busybox:1.37
    command: [serve]
    env:
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: late, key: auth}}}
`

const lateSecret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: late, namespace: shop}\nstringData: {auth: hunter2}\n"

// withSecrets makes the policy of a manifest with settings over the default platform's.
func withSecrets(t *testing.T, manifest, over string) (*policydata.Policy, []*generate.Finding, error) {
	t.Helper()
	s, err := settings.Load(settings.DefaultPlatform, settings.DropIn{Name: "test", Text: []byte("[generate]\n" + over)})
	if err != nil {
		t.Fatal(err)
	}
	m, err := generate.Parse("pod.yaml", []byte(manifest), generate.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var configs generate.Configs
	if err := configs.Add(m); err != nil {
		t.Fatal(err)
	}
	g := generate.New(s, generatetest.Images(t, "testdata/images.json"), &configs, generate.Options{})
	return g.Policy(context.Background(), m.Pods()[0])
}

func TestVariablesFromSecretsAreBoundAsTheSettingsSay(t *testing.T) {
	hash := fmt.Sprintf("%x", sha256.Sum256([]byte("hunter2")))
	known := fmt.Sprintf("\nsecret_hashes = {%q = %q}", "late/auth", hash)
	longer := strings.Replace(secretPod, "    env:\n", "    args: [\"-p$(PASSWORD)\"]\n    env:\n", 1)
	optional := strings.Replace(secretPod, "key: auth", "key: auth, optional: true", 1)
	inAnother := secretPod + "    - {name: URL, value: \"db://u:$(PASSWORD)@h\"}\n"
	all := strings.Replace(secretPod, "    env:\n", "    envFrom: [{secretRef: {name: late}}]\n    env:\n", 1)
	for _, test := range []struct {
		name, manifest, over string
		bound                string // how the variable is, or what the refusal says
		warned               string
	}{
		{"refuse, not given", secretPod, "", "refused: refers to Secret late, which was not given", ""},
		{"refuse, given", secretPod + lateSecret, "", "fixed hunter2", "in clear"},
		{"refuse, with a hash", secretPod, known[1:], "refused: refers to Secret late, which was not given", ""},
		{"hash, not given", secretPod, `secrets = "hash"`, `refused: takes key auth of Secret late, which was not given`, ""},
		{"hash, given", secretPod + lateSecret, `secrets = "hash"`, "hash " + hash, "bound by the hash"},
		{"hash, known by hash", secretPod, `secrets = "hash"` + known, "hash " + hash, "secret_hashes"},
		{"hash, of every key", all + lateSecret, `secrets = "hash"`, "hash " + hash, "bound by the hash"},
		{"hash, in an argument", longer + lateSecret, `secrets = "hash"`, "refused: puts a Secret's value into argument 1", ""},
		{"hash, in another variable", inAnother + lateSecret, `secrets = "hash"`, "refused: puts a Secret's value into a longer one of URL", ""},
		{"unbound, not given", secretPod, `secrets = "unbound"`, "pattern ^(?s:.*)$", "by its name alone"},
		{"unbound, given", secretPod + lateSecret, `secrets = "unbound"`, "hash " + hash, "bound by the hash"},
		{"unbound, optional", optional, `secrets = "unbound"`, "optional ^(?s:.*)$", "by its name alone"},
		{"unbound, every key", all, `secrets = "unbound"`, "refused: refers to Secret late, which was not given", ""},
		{"unbound, in an argument", longer, `secrets = "unbound"`, "pattern ^(?s:.*)$", "into argument 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			made, warnings, err := withSecrets(t, test.manifest, test.over)
			if got := secretBinding(made, err); !strings.HasPrefix(got, test.bound) {
				t.Errorf("is %q, want %q", got, test.bound)
			}
			if all := fmt.Sprint(warnings); !strings.Contains(all, test.warned) || strings.Contains(all, "hunter2") {
				t.Errorf("warnings are %v, want one of %q and no value", warnings, test.warned)
			}
			if made == nil || strings.HasPrefix(test.bound, "fixed") {
				return
			}
			if raw, err := made.JSON(); err != nil || strings.Contains(string(raw), "hunter2") {
				t.Errorf("the value is in the policy (%v)", err)
			}
		})
	}
}

// secretBinding says how the policy binds PASSWORD, or why there is none.
func secretBinding(p *policydata.Policy, err error) string {
	if err != nil {
		found, _ := generate.Findings(err)
		return "refused: " + found[0].Text
	}
	env := p.Containers["a"].Env
	for _, entry := range env.Fixed {
		if value, ok := strings.CutPrefix(entry, "PASSWORD="); ok {
			return "fixed " + value
		}
	}
	for how, values := range map[string]map[string]string{"hash": env.Hashes, "pattern": env.Patterns, "optional": env.Optional} {
		if value, ok := values["PASSWORD"]; ok {
			return how + " " + value
		}
	}
	return "absent"
}
