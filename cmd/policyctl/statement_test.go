// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A log with one entry, whose root is the hash of that entry.
func TestASignedStatementIsFoundInItsLog(t *testing.T) {
	bundle, err := os.ReadFile("../../rules/statement/bundle/testdata/cosign.sigstore.json")
	if err != nil {
		t.Fatal(err)
	}
	secret, key, err := note.GenerateKey(nil, "log.example/policies")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	root := tlog.RecordHash(bundle)
	signed, err := note.Sign(&note.Note{Text: fmt.Sprintf("log.example/policies\n1\n%s\n", base64.StdEncoding.EncodeToString(root[:sha256.Size]))}, signer)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good"), filepath.Join(dir, "bad")
	for path, index := range map[string]int{good: 0, bad: 1} {
		if err := os.WriteFile(path, fmt.Appendf(nil, "c2sp.org/tlog-proof@v1\nindex %d\n\n%s", index, signed), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, says string
		code       int
		args       []string
	}{
		{"in the log", "OK in the log log.example/policies, entry 0 of 1\n", exitOK, []string{"--receipt", good, "--log-key", key}},
		{"elsewhere", "is the receipt of something else", exitNo, []string{"--receipt", bad, "--log-key", key}},
		{"without the key of the log", "go together", exitUsage, []string{"--receipt", good}},
		{"with no key", "is no key of a log", exitUsage, []string{"--receipt", good, "--log-key", "log"}},
		{"with no receipt", "is no receipt of a log", exitFail, []string{"--receipt", "statement_test.go", "--log-key", key}},
	} {
		var out bytes.Buffer
		args := append([]string{"statement", "verify", "../../rules/statement/bundle/testdata/cosign.sigstore.json", "--key", "../../rules/statement/bundle/testdata/cosign.pub"}, c.args...)
		code := run(t.Context(), args, stdio{strings.NewReader(""), &out, &out})
		if code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("%s: exit %d: %s", c.name, code, out.String())
		}
	}
}
