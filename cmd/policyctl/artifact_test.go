// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
)

// The registry is another implementation of the protocol.
func TestAPolicyGoesThroughARegistry(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	dir := t.TempDir()
	policy, pulled := filepath.Join(dir, "policy.rego"), filepath.Join(dir, "pulled.rego")
	text := []byte("package agent_policy\n\ndefault CreateContainerRequest := false\n")
	if err := os.WriteFile(policy, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "none.rego"), []byte("package agent_policy\n\nallow if {\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	call := func(args ...string) (int, string, string) {
		var out, errs bytes.Buffer
		code := run(t.Context(), args, stdio{strings.NewReader(""), &out, &errs})
		return code, out.String(), errs.String()
	}
	code, name, errs := call("push", host+"/policies/shop:v3", policy, "--statement", policy)
	if code != 0 || !strings.HasPrefix(name, host+"/policies/shop@sha256:") {
		t.Fatalf("push: exit %d: %s%s", code, name, errs)
	}
	for _, reference := range []string{host + "/policies/shop:v3", strings.TrimSpace(name)} {
		if code, _, errs := call("pull", reference, "--output", pulled, "--statement", filepath.Join(dir, "bundle")); code != 0 {
			t.Fatalf("pull %s: exit %d: %s", reference, code, errs)
		}
		if got, err := os.ReadFile(pulled); err != nil || !bytes.Equal(got, text) {
			t.Errorf("pull %s: %q, %v", reference, got, err)
		}
	}
	for _, c := range []struct {
		name string
		code int
		says string
		args []string
	}{
		{"what is not there", 1, "v4 is not in the registry", []string{"pull", host + "/policies/shop:v4"}},
		{"a name of nothing", 2, "is no name in a registry", []string{"pull", "shop"}},
		{"nobody at the address", 3, "connect", []string{"pull", "localhost:1/shop:v1"}},
		{"no policy", 1, "a guest refuses it", []string{"push", host + "/policies/shop:v3", filepath.Join(dir, "none.rego")}},
	} {
		if code, _, errs := call(c.args...); code != c.code || !strings.Contains(errs, c.says) {
			t.Errorf("%s: exit %d: %s", c.name, code, errs)
		}
	}
}
