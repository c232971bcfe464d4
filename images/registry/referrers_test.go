// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"errors"
	"io"
	"log"
	"net/http"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"

	"portcullis/images"
	"portcullis/images/registry"
)

// refer pushes an image, and an artifact that refers to it, as go-containerregistry does for either kind of registry. It returns
// their digests.
func refer(t *testing.T, h *host) (image, artifact v1.Hash) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at, err := name.NewTag(h.name+"/app:v1", name.Insecure)
	must(err)
	must(remote.Write(at, empty.Image))
	subject, err := partial.Descriptor(empty.Image)
	must(err)
	made, ok := mutate.Subject(mutate.Annotations(empty.Image, map[string]string{"made": "here"}).(v1.Image), *subject).(v1.Image)
	if !ok {
		t.Fatal("no image")
	}
	artifact, err = made.Digest()
	must(err)
	must(remote.Write(at.Context().Digest(artifact.String()), made))
	return subject.Digest, artifact
}

func TestReferrersAreFoundInEitherKindOfRegistry(t *testing.T) {
	for kind, handler := range map[string]ggcr.Option{"with referrers": ggcr.WithReferrersSupport(true), "of old": ggcr.WithReferrersSupport(false)} {
		t.Run(kind, func(t *testing.T) {
			h := newHost()
			h.handler = ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)), handler)
			h.plain(t)
			image, artifact := refer(t, h)
			mirror := newHost().plain(t) // which has nothing, and is asked first
			store := newStore(t, registry.Options{Insecure: []string{h.name, mirror.name}, Mirrors: map[string][]string{h.name: {mirror.name}}})
			ref, err := images.ParseReference(h.name + "/app:v1")
			if err != nil {
				t.Fatal(err)
			}
			found, err := store.Referrers(t.Context(), ref, digest.Digest(image.String()))
			if err != nil || len(found) != 1 || found[0].Digest.String() != artifact.String() {
				t.Errorf("got %v (%v), want %s", found, err, artifact)
			}
			if found, err := store.Referrers(t.Context(), ref, digest.Digest(artifact.String())); !errors.Is(err, images.ErrNotFound) {
				t.Errorf("of what nothing refers to: %v (%v)", found, err)
			}
		})
	}
	h := newHost().plain(t)
	store := newStore(t, registry.Options{Insecure: []string{h.name}})
	ref, _ := images.ParseReference(h.name + "/app:v1")
	h.before = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusForbidden); return true }
	if _, err := store.Referrers(t.Context(), ref, digest.FromString("x")); err == nil || errors.Is(err, images.ErrNotFound) {
		t.Errorf("of a registry that answers nobody: %v", err)
	}
}
