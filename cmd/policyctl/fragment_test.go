// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"strings"
	"testing"

	"portcullis/engine/fragment"
	"portcullis/internal/generatetest"
	"portcullis/rules"
	"portcullis/rules/policydata"
)

const fragmentPod = `apiVersion: v1
kind: Pod
metadata: {name: shop}
spec:
  containers:
  - {name: web, image: "ghcr.io/acme/app:v2"}
`

// fragmentFiles writes a key pair, a pod's policy with issuers, and the policy of the pod with a change, into an empty working
// directory.
func fragmentFiles(t *testing.T, change func(*policydata.Policy)) {
	t.Helper()
	images := generatetest.Images(t, "../../rules/generate/testdata/images.json")
	settings := generatetest.Settings(t, "guest-pull")
	t.Chdir(t.TempDir())
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{4}, 32))
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, "release.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	writeFile(t, "release.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	writeFile(t, "pod.yaml", []byte(fragmentPod))
	out, _ := ctl(t, exitOK, "fragment", "issuer", "--feed=shop", "--minimum-svn=1", "--key=release.pub",
		"--may=containers.web.image registries=registry.example.org/shop", "--may=containers.web.exec")
	issuers, err := fragment.ReadIssuers([]byte(out))
	if err != nil {
		t.Fatal(err)
	}
	made, _, err := generatetest.Policies(generatetest.Manifest(t, "pod.yaml"), settings, images)
	if err != nil {
		t.Fatal(err)
	}
	p := made[0]
	p.Issuers = issuers
	setImage(p, "1")
	write := func(name string) {
		text, err := p.Compact(rules.Text())
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, name, text)
	}
	write("pod.rego")
	change(p)
	write("next.rego")
}

func setImage(p *policydata.Policy, digit string) {
	digest := "sha256:" + strings.Repeat(digit, 64)
	name := "registry.example.org/shop/web@" + digest
	p.Containers["web"].Image = policydata.Image{From: policydata.GuestPull, Source: name, Digest: digest}
	p.Containers["web"].OCI.Annotations.ImageName = name
}

func writeFile(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// ctl runs policyctl in this process and requires its exit code.
func ctl(t *testing.T, exit int, args ...string) (out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	if got := run(t.Context(), args, stdio{strings.NewReader(""), &o, &e}); got != exit {
		t.Errorf("policyctl %q: exit code %d, want %d\n%s%s", args, got, exit, o.String(), e.String())
	}
	return o.String(), e.String()
}

// TestUpdatesPage runs the commands of docs/updates.md that need no guest, as they stand there.
func TestUpdatesPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/updates.md")
	if err != nil {
		t.Fatal(err)
	}
	fragmentFiles(t, func(p *policydata.Policy) { setImage(p, "2") })
	ran := 0
	for _, line := range strings.Split(string(page), "\n") {
		command, ok := strings.CutPrefix(line, "policyctl fragment ")
		if !ok {
			continue
		}
		command, file, redirected := strings.Cut(command, " > ")
		out, _ := ctl(t, exitOK, append([]string{"fragment"}, shellWords(command)...)...)
		if redirected {
			writeFile(t, file, []byte(out))
		}
		ran++
	}
	if ran != 4 {
		t.Errorf("%d commands ran, want issuer, make, sign and inspect", ran)
	}
	envelope, err := os.ReadFile("fragment.cose")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fragment.Open(envelope); err != nil {
		t.Error(err)
	}
}

// shellWords splits a line at spaces outside of single quotes.
func shellWords(line string) []string {
	var out []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			out = append(out, part)
		} else {
			out = append(out, strings.Fields(part)...)
		}
	}
	return out
}

// TestFragmentMakeRefuses what no fragment can set, and what the issuer may not.
func TestFragmentMakeRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*policydata.Policy)
		says   string
	}{
		"another registry": {func(p *policydata.Policy) {
			p.Containers["web"].Image.Source = strings.Replace(p.Containers["web"].Image.Source, "registry", "evil", 1)
		}, "none of the registries"},
		"a field not granted": {func(p *policydata.Policy) { p.Containers["web"].Cwd = "/other" }, "may not set cwd"},
		"another user":        {func(p *policydata.Policy) { p.Containers["web"].OCI.Process.User.UID = 1 }, "OCI.Process differs"},
		"a request family":    {func(p *policydata.Policy) { p.Requests.Allow = []string{"GetMetricsRequest"} }, "requests differs"},
		"another storage":     {func(p *policydata.Policy) { p.Containers["web"].Storages = []policydata.Storage{{Source: "x"}} }, "storages differs"},
		"a new container":     {func(p *policydata.Policy) { p.Containers["more"] = p.Containers["web"] }, "may not set image"},
		"a container less":    {func(p *policydata.Policy) { delete(p.Containers, "web") }, "containers.web is gone"},
		"nothing":             {func(*policydata.Policy) {}, "nothing to set"},
	} {
		t.Run(name, func(t *testing.T) {
			fragmentFiles(t, tt.change)
			if _, errs := ctl(t, exitNo, "fragment", "make", "--measured=pod.rego", "--next=next.rego", "--feed=shop", "--svn=2"); !strings.Contains(errs, tt.says) {
				t.Errorf("it says %q, want %q", errs, tt.says)
			}
		})
	}
	fragmentFiles(t, func(p *policydata.Policy) { setImage(p, "2") })
	ctl(t, exitNo, "fragment", "make", "--measured=pod.rego", "--next=next.rego", "--feed=other", "--svn=2")
	ctl(t, exitNo, "fragment", "make", "--measured=pod.rego", "--next=next.rego", "--feed=shop", "--svn=0")
	ctl(t, exitUsage, "fragment", "make", "--measured=pod.rego", "--next=next.rego", "--feed=shop")
	ctl(t, exitUsage, "fragment", "issuer", "--feed=shop", "--key=release.pub", "--may=containers.web.rules")
	ctl(t, exitUsage, "fragment", "issuer", "--feed=shop", "--key=release.pub", "--may=containers.web.image registry=x")
	ctl(t, exitUsage, "fragment")
}

// TestFragmentInspectSaysWhoRefuses: by the policy that is given.
func TestFragmentInspectSaysWhoRefuses(t *testing.T) {
	fragmentFiles(t, func(p *policydata.Policy) { setImage(p, "2") })
	document, _ := ctl(t, exitOK, "fragment", "make", "--measured=pod.rego", "--next=next.rego", "--feed=shop", "--svn=2")
	writeFile(t, "document", []byte(document))
	text, _ := ctl(t, exitOK, "fragment", "sign", "--text", "--key=release.key", "document")
	writeFile(t, "fragment", []byte(text))
	policy, err := os.ReadFile("pod.rego")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, "raised.rego", bytes.Replace(policy, []byte(`"minimum_svn":1`), []byte(`"minimum_svn":3`), 1))
	out, _ := ctl(t, exitNo, "fragment", "inspect", "--policy=raised.rego", "fragment")
	var got inspected
	if err := json.Unmarshal([]byte(out), &got); err != nil || !strings.Contains(got.Refused, "minimum_svn") || got.Digest == "" || got.Algorithm != "EdDSA" {
		t.Errorf("%v: %+v", err, got)
	}
	writeFile(t, "broken", []byte(strings.Replace(text, "0oR", "0oS", 1)))
	ctl(t, exitNo, "fragment", "inspect", "broken")
	ctl(t, exitNo, "fragment", "sign", "--key=release.key", "pod.yaml")
}
