// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func TestARegistryIsAskedForEachBlobOnce(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]int{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			mu.Lock()
			asked[r.URL.Path]++
			mu.Unlock()
		}
		inner.ServeHTTP(w, r)
	})
	// Not of those names of this machine that need no flag.
	listener, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	go server.Serve(listener)
	defer server.Close()
	host := listener.Addr().String()
	push(t, host+"/acme/app:v1")

	t.Setenv("DOCKER_CONFIG", t.TempDir())
	pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n" +
		"  - {name: one, image: \"" + host + "/acme/app:v1\"}\n  - {name: two, image: \"" + host + "/acme/app:v1\"}\n"
	code, out, errs := call(t, pod, "--compact", "-r", "--lock-digests", "--insecure-registry", host)
	if code != exitDone {
		t.Fatalf("exit %d: %s", code, errs)
	}
	if !strings.Contains(out, host+"/acme/app@sha256:") {
		t.Error("the policy does not hold the digest")
	}
	if len(asked) != 1 {
		t.Errorf("%d blobs were asked for, want the configuration alone: %v", len(asked), asked)
	}
	for blob, n := range asked {
		if n != 1 {
			t.Errorf("%s was asked for %d times", blob, n)
		}
	}

	// Plain HTTP is only for the registries that are named.
	if code, _, errs := call(t, pod, "-r"); code != exitFailed || !strings.Contains(errs, "cannot be opened") {
		t.Errorf("without --insecure-registry: exit %d: %s", code, errs)
	}
}

func push(t *testing.T, reference string) {
	t.Helper()
	image, err := random.Image(1000, 3)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.OS, config.Architecture = "linux", "amd64"
	config.Config.Entrypoint, config.Config.User = []string{"/app"}, "1000"
	if image, err = mutate.ConfigFile(image, config); err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(reference, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image); err != nil {
		t.Fatal(err)
	}
}
