// SPDX-License-Identifier: Apache-2.0

package guesttest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"portcullis/engine/fragment"
	"portcullis/internal/rulestest"
	"portcullis/rules/policydata"
)

// updated is the container that a fragment gives another image.
const updated = "container-1"

// newReleaseKey makes a key, and names it in the policy as who may update that container's image.
func newReleaseKey(t *testing.T, policy *policydata.Policy) ed25519.PrivateKey {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	policy.Issuers = []fragment.Issuer{{Feed: "guest", MinimumSVN: 1, Key: base64.StdEncoding.EncodeToString(der),
		May: []fragment.May{{Path: "containers." + updated + ".image", Registries: []string{"registry.example/"}}}}}
	return key
}

// newUpdate signs a fragment with another image, and makes what a host asks then.
func newUpdate(t *testing.T, key ed25519.PrivateKey, e rulestest.Emulator) (envelope, cases []byte) {
	t.Helper()
	digest := "sha256:" + strings.Repeat("6d", 32)
	image := &fragment.Image{Name: "registry.example/" + updated + "@" + digest, Also: []string{}, Digest: digest}
	envelope, err := fragment.Sign(fragment.Document{Version: 1, Feed: "guest", SVN: 1, Containers: map[string]*fragment.Part{updated: {Image: image}}}, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	next := *e.Policy
	next.Containers = maps.Clone(next.Containers)
	c := *next.Containers[updated]
	c.Image.Source, c.Image.Digest, c.OCI.Annotations.ImageName = image.Name, digest, image.Name
	next.Containers[updated] = &c
	var out bytes.Buffer
	stats := func(name string) {
		add(t, &out, rulestest.Request{Kind: "StatsContainerRequest", Input: map[string]any{"container_id": rulestest.ID(name)}}, "")
	}
	for i := range containers {
		stats(fmt.Sprintf("container-%d", i)) // all of them run on
	}
	create := func(e rulestest.Emulator, n int) rulestest.Request { return withID(t, e.CreateContainer(updated), n) }
	after := rulestest.Emulator{Policy: &next, Pod: e.Pod}
	add(t, &out, create(after, 1), "the new image beside the old container")
	add(t, &out, rulestest.Request{Kind: "SignalProcessRequest", Input: map[string]any{"container_id": rulestest.ID(updated), "exec_id": "", "signal": 9}}, "")
	add(t, &out, rulestest.Request{Kind: "WaitProcessRequest", Input: map[string]any{"container_id": rulestest.ID(updated), "exec_id": ""}}, "")
	add(t, &out, rulestest.Request{Kind: "RemoveContainerRequest", Input: map[string]any{"container_id": rulestest.ID(updated), "timeout": 0}}, "")
	add(t, &out, create(e, 2), "the old image once more")
	add(t, &out, create(after, 3), "")
	add(t, &out, rulestest.Request{Kind: "StartContainerRequest", Input: map[string]any{"container_id": numbered(3)}}, "")
	stats("container-0")
	return envelope, out.Bytes()
}

func numbered(n int) string { return fmt.Sprintf("%064x", n) }

// withID is a request about that container with another id.
func withID(t *testing.T, r rulestest.Request, n int) rulestest.Request {
	t.Helper()
	text, err := json.Marshal(r.Input)
	if err != nil {
		t.Fatal(err)
	}
	var input map[string]any
	if err := json.Unmarshal(bytes.ReplaceAll(text, []byte(rulestest.ID(updated)), []byte(numbered(n))), &input); err != nil {
		t.Fatal(err)
	}
	return rulestest.Request{Kind: r.Kind, Input: input}
}
