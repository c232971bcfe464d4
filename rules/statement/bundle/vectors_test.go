// SPDX-License-Identifier: Apache-2.0

//go:build vectors

package bundle_test

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"portcullis/rules/statement/bundle"
)

var cosign = flag.String("cosign", "cosign", "the cosign program, 2.6 or later")

// TestVectors has cosign sign a statement of ours, under a new key, and check one that we signed with that key:
//
//	go test -tags vectors ./rules/statement/bundle -run TestVectors -cosign /usr/bin/cosign
func TestVectors(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	call := func(args ...string) {
		cmd := exec.Command(*cosign, args...)
		cmd.Env = append(os.Environ(), "COSIGN_PASSWORD=secret")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("cosign %s: %v\n%s", args[0], err, out)
		}
	}
	made, key := write("statement.json", text(t)), filepath.Join(dir, "cosign")
	call("generate-key-pair", "--output-key-prefix", key)
	call("attest-blob", "--yes", "--tlog-upload=false", "--key", key+".key", "--statement", made, "--new-bundle-format", "--bundle", "testdata/cosign.sigstore.json")
	for _, name := range []string{"cosign.pub", "cosign.key"} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join("testdata", name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}

	private, err := os.ReadFile(key + ".key")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := bundle.ParseKey(private, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	ours, err := bundle.Sign(t.Context(), text(t), signer)
	if err != nil {
		t.Fatal(err)
	}
	// Without a root of trust cosign asks the network for one, though a key needs none.
	root := write("root.json", []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`))
	call("verify-blob-attestation", "--key", key+".pub", "--insecure-ignore-tlog", "--type", "slsaprovenance1", "--new-bundle-format",
		"--trusted-root", root, "--bundle", write("ours.sigstore.json", ours), write("policy.rego", []byte(policy)))
}
