// SPDX-License-Identifier: Apache-2.0

package signature_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"portcullis/images"
	"portcullis/images/layout"
	"portcullis/images/signature"
	"portcullis/internal/imagestest"
)

// What cosign itself signed and stored; TestVectors makes it.
func TestAnImageSignedByCosignIsTrustedUnderItsOwnKeyAlone(t *testing.T) {
	store, err := layout.Open("testdata/signed")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for _, c := range []struct {
		name, image string
		keys        []string
		want        error // nil for trusted
	}{
		{"by its key", "registry.example/ec:v1", []string{"ec"}, nil},
		{"by its digest", "registry.example/ec@" + manifestOf(t, store, "registry.example/ec:v1"), []string{"ec"}, nil},
		{"by one of several keys", "registry.example/ec:v1", []string{"rsa", "ec"}, nil},
		{"by an RSA key", "registry.example/rsa:v1", []string{"rsa"}, nil},
		{"an index", "registry.example/index:v1", []string{"ec"}, nil},
		{"by another key", "registry.example/ec:v1", []string{"rsa"}, signature.ErrForeign},
		{"by nobody", "registry.example/plain:v1", []string{"ec", "rsa"}, signature.ErrUnsigned},
	} {
		t.Run(c.name, func(t *testing.T) {
			opener := signature.NewOpener(images.NewOpener([]images.Store{store}, images.Options{}), []images.Store{store}, keys(t, c.keys...))
			_, err := opener.Image(t.Context(), c.image)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if err != nil && !errors.Is(err, images.ErrUntrusted) {
				t.Errorf("%v is no refusal", err)
			}
		})
	}
}

func manifestOf(t *testing.T, store images.Store, name string) string {
	t.Helper()
	ref, err := images.ParseReference(name)
	if err != nil {
		t.Fatal(err)
	}
	target, err := store.Resolve(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	return target.Descriptor.Digest.String()
}

func keys(t *testing.T, names ...string) signature.Signers {
	t.Helper()
	var out signature.Signers
	for _, name := range names {
		text, err := os.ReadFile("testdata/" + name + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		key, err := signature.ParseKey(text)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := signature.NewKey(key)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, signer)
	}
	return out
}

// signed loads the vectors into memory, and opens one of them with the manifest of its signatures.
func signed(t *testing.T, name string) (*imagestest.Store, *images.Image, ocispec.Manifest) {
	t.Helper()
	store := imagestest.NewStore()
	var index ocispec.Index
	read(t, "testdata/signed/index.json", &index)
	for _, d := range index.Manifests {
		store.Names[d.Annotations[ocispec.AnnotationRefName]] = d
	}
	blobs, err := filepath.Glob("testdata/signed/blobs/sha256/*")
	if err != nil || len(blobs) == 0 {
		t.Fatalf("no vectors: %v", err)
	}
	for _, path := range blobs {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		store.Blobs[digest.FromBytes(content)] = content
	}
	img, err := images.NewOpener([]images.Store{store}, images.Options{}).Image(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(store.Blobs[store.Names[beside(img)].Digest], &manifest); err != nil {
		t.Fatal(err)
	}
	return store, img, manifest
}

func read(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
}

// beside is the name of the signatures of an image.
func beside(img *images.Image) string {
	return img.Reference.Name() + ":sha256-" + img.Digests.Lock().Encoded() + ".sig"
}

func TestASignatureThatWasTamperedWithCountsForNothing(t *testing.T) {
	const annotation = "dev.cosignproject.cosign/signature"
	for _, c := range []struct {
		name   string
		change func(s *imagestest.Store, m *ocispec.Manifest)
		want   error
	}{
		{"as it is", func(*imagestest.Store, *ocispec.Manifest) {}, nil},
		{"another payload", func(s *imagestest.Store, m *ocispec.Manifest) {
			other := s.AddBlob(m.Layers[0].MediaType, append(s.Blobs[m.Layers[0].Digest], ' '))
			other.Annotations = m.Layers[0].Annotations
			m.Layers[0] = other
		}, signature.ErrForeign},
		{"without a signature", func(_ *imagestest.Store, m *ocispec.Manifest) { delete(m.Layers[0].Annotations, annotation) }, signature.ErrForeign},
		{"a signature that is no base64", func(_ *imagestest.Store, m *ocispec.Manifest) { m.Layers[0].Annotations[annotation] = "%" }, signature.ErrForeign},
		{"a signature with a bit flipped", func(_ *imagestest.Store, m *ocispec.Manifest) {
			sum, _ := base64.StdEncoding.DecodeString(m.Layers[0].Annotations[annotation])
			sum[len(sum)-1] ^= 1
			m.Layers[0].Annotations[annotation] = base64.StdEncoding.EncodeToString(sum)
		}, signature.ErrForeign},
		{"another kind of layer", func(_ *imagestest.Store, m *ocispec.Manifest) { m.Layers[0].MediaType = "application/octet-stream" }, signature.ErrForeign},
		{"no layer", func(_ *imagestest.Store, m *ocispec.Manifest) { m.Layers = nil }, signature.ErrForeign},
		{"behind one of nobody's", func(s *imagestest.Store, m *ocispec.Manifest) {
			nobody := s.AddBlob(m.Layers[0].MediaType, []byte("{}"))
			nobody.Annotations = m.Layers[0].Annotations
			m.Layers = append([]ocispec.Descriptor{nobody}, m.Layers...)
		}, nil},
		{"of another image", func(s *imagestest.Store, m *ocispec.Manifest) {
			_, _, *m = signed(t, "registry.example/index:v1")
		}, signature.ErrForeign},
	} {
		t.Run(c.name, func(t *testing.T) {
			store, img, m := signed(t, "registry.example/ec:v1")
			c.change(store, &m)
			text, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			store.Name(beside(img), store.AddBlob(ocispec.MediaTypeImageManifest, text))
			err = keys(t, "ec").Verify(t.Context(), []images.Store{store}, img)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// failing is a store that cannot look for signatures.
type failing struct{ images.Store }

func (f failing) Resolve(ctx context.Context, ref images.Reference) (images.Target, error) {
	if strings.HasSuffix(ref.Tag, ".sig") {
		return images.Target{}, errors.New("connection refused")
	}
	return f.Store.Resolve(ctx, ref)
}

func TestAFailureToLookIsNoAnswer(t *testing.T) {
	store, img, _ := signed(t, "registry.example/ec:v1")
	err := keys(t, "ec").Verify(t.Context(), []images.Store{failing{store}, store}, img)
	if err == nil || errors.Is(err, images.ErrUntrusted) {
		t.Errorf("got %v, want a failure", err)
	}
}

func TestKeysThatAreNoneAreRefused(t *testing.T) {
	for name, pem := range map[string]string{
		"nothing":       "",
		"text":          "a key",
		"a private key": "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIGj3Fp1nMXlgbY4M9gLGCBlAxkOAZf7bQ/0Y0hZwVvoo\n-----END PRIVATE KEY-----\n",
	} {
		if _, err := signature.ParseKey([]byte(pem)); err == nil {
			t.Errorf("%s is taken for a public key", name)
		}
	}
}

// What cosign 3 signed and stored; TestBundleVectors makes it.
func TestAnImageInABundleOfCosignIsTrustedUnderItsOwnKeyAlone(t *testing.T) {
	store, err := layout.Open("testdata/bundled")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	opener := images.NewOpener([]images.Store{store}, images.Options{})
	for name, want := range map[string]error{"bundled": nil, "ec": signature.ErrForeign} {
		img, err := opener.Image(t.Context(), "registry.example/bundled:v1")
		if err != nil {
			t.Fatal(err)
		}
		if err := keys(t, name).Verify(t.Context(), []images.Store{store}, img); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("under the key %s: %v, want %v", name, err, want)
		}
	}
}
