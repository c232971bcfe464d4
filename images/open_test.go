// SPDX-License-Identifier: Apache-2.0

package images_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"portcullis/images"
	"portcullis/internal/imagestest"
)

func ref(t testing.TB, s string) images.Reference {
	t.Helper()
	r, err := images.ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestParseReference(t *testing.T) {
	const sum = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for in, want := range map[string]string{
		"nginx":                         "docker.io/library/nginx:latest",
		"docker.io/nginx:1":             "docker.io/library/nginx:1",
		"index.docker.io/library/nginx": "docker.io/library/nginx:latest",
		"a/b":                           "docker.io/a/b:latest",
		"ghcr.io/a/b/c:v1":              "ghcr.io/a/b/c:v1",
		"localhost:5000/x":              "localhost:5000/x:latest",
		"localhost:5000/x" + sum:        "localhost:5000/x" + sum,
		"nginx:1.25" + sum:              "docker.io/library/nginx:1.25" + sum,
		"nginx" + sum:                   "docker.io/library/nginx" + sum,
	} {
		got, err := images.ParseReference(in)
		if err != nil || got.String() != want {
			t.Errorf("ParseReference(%q) = %q, %v; want %q", in, got, err, want)
		}
		again, err := images.ParseReference(want)
		if err != nil || again != got {
			t.Errorf("ParseReference(%q) = %+v, %v; want %+v", want, again, err, got)
		}
	}
	for _, in := range []string{
		"", "UPPER/x", "x@", "x@sha256:12", "x" + sum + sum, "x y", "a//b", "x@sha512:" + sum[8:] + sum[8:],
	} {
		if got, err := images.ParseReference(in); err == nil {
			t.Errorf("ParseReference(%q) = %q, want an error", in, got)
		}
	}
}

func TestOpenReadsIdentityAndConfigButNoLayer(t *testing.T) {
	for _, compression := range []imagestest.Compression{imagestest.Gzip, imagestest.Zstd, imagestest.None} {
		s := imagestest.NewStore()
		config := images.Config{
			User: "1000", Env: []string{"A=b"}, Entrypoint: []string{"/e"}, Cmd: []string{"c"}, WorkingDir: "/w",
			Volumes: []string{"/a", "/b"},
		}
		made := imagestest.WithFiles(config, map[string]string{"etc/passwd": "root:x:0:0:::\n"})
		made.Compression = compression
		arm := made
		arm.Platform = ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
		amdDesc, armDesc := s.Add("", made), s.Add("", arm)
		index := s.AddIndex("app:1", amdDesc, armDesc)

		img, err := images.Open(t.Context(), s, ref(t, "app:1"), images.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(config, img.Config); diff != "" {
			t.Error(diff)
		}
		if img.Digests.Index != index.Digest || img.Digests.Manifest != amdDesc.Digest || img.Digests.Config == "" ||
			img.Digests.Lock() != index.Digest {
			t.Errorf("digests %+v", img.Digests)
		}
		if n := s.Fetched(img.Layers[0].Digest); n != 0 {
			t.Errorf("layer fetched %d times before anything asked for it", n)
		}
		layer, err := img.Layers[0].Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(layer)
		if err != nil || layer.Close() != nil || !bytes.Equal(got, made.Layers[0]) {
			t.Errorf("compression %d: layer of %d bytes, %v; want %d bytes", compression, len(got), err, len(made.Layers[0]))
		}
		if ids := img.ChainIDs(); len(ids) != 1 || ids[0] != img.Layers[0].DiffID {
			t.Errorf("chain ids %v", ids)
		}

		img, err = images.Open(t.Context(), s, ref(t, "app:1"), images.Options{Platform: ocispec.Platform{Architecture: "arm64"}})
		if err != nil || img.Digests.Manifest != armDesc.Digest {
			t.Errorf("arm64: %v", err)
		}
		var missing *images.PlatformError
		_, err = images.Open(t.Context(), s, ref(t, "app:1"), images.Options{Platform: ocispec.Platform{Architecture: "s390x"}})
		if !errors.As(err, &missing) || len(missing.Got) != 2 {
			t.Errorf("s390x: %v, want a PlatformError that lists what there is", err)
		}
		pinned := ref(t, "app:1").WithDigest(amdDesc.Digest)
		img, err = images.Open(t.Context(), s, pinned, images.Options{})
		if err != nil || img.Digests.Index != "" || img.Digests.Lock() != amdDesc.Digest {
			t.Errorf("pinned: %v", err)
		}
	}
}

// lyingStore answers with other content than asked for.
type lyingStore struct {
	images.Store
	change func(ocispec.Descriptor, []byte) []byte
}

func (l lyingStore) Fetch(ctx context.Context, ref images.Reference, d ocispec.Descriptor) (io.ReadCloser, error) {
	rc, err := l.Store.Fetch(ctx, ref, d)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(rc)
	return io.NopCloser(bytes.NewReader(l.change(d, raw))), err
}

func TestNothingAStoreSaysIsTrusted(t *testing.T) {
	s := imagestest.NewStore()
	made := imagestest.WithFiles(images.Config{}, map[string]string{"etc/passwd": "u:x:1:2:::\n"})
	made.Compression = imagestest.None
	s.AddIndex("app", s.Add("", made))
	honest, err := images.Open(t.Context(), s, ref(t, "app"), images.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := honest.Digests
	for name, victim := range map[string]digest.Digest{
		"index": d.Index, "manifest": d.Manifest, "config": d.Config, "layer": honest.Layers[0].Digest,
	} {
		for how, change := range map[string]func([]byte) []byte{
			"one byte changed": func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 1; return b },
			"truncated":        func(b []byte) []byte { return b[:len(b)-1] },
			"extended":         func(b []byte) []byte { return append(bytes.Clone(b), ' ') },
			"empty":            func([]byte) []byte { return nil },
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				liar := lyingStore{s, func(d ocispec.Descriptor, raw []byte) []byte {
					if d.Digest == victim {
						return change(raw)
					}
					return raw
				}}
				img, err := images.Open(t.Context(), liar, ref(t, "app"), images.Options{})
				if err == nil {
					_, err = img.Accounts(t.Context())
				}
				if err == nil {
					t.Error("the changed content was accepted")
				}
			})
		}
	}
	t.Run("pinned reference answered with another image", func(t *testing.T) {
		other := digest.FromString("other")
		s.Blobs[other] = s.Blobs[d.Manifest]
		_, err := images.Open(t.Context(), s, ref(t, "app").WithDigest(other), images.Options{})
		var wrong *images.DigestError
		if !errors.As(err, &wrong) {
			t.Errorf("got %v, want a DigestError", err)
		}
	})
}

func TestOpenRefusesWhatIsNoImage(t *testing.T) {
	s := imagestest.NewStore()
	add := func(name, mediaType, content string) { s.Name(name, s.AddBlob(mediaType, []byte(content))) }
	config := s.AddBlob(ocispec.MediaTypeImageConfig, []byte(`{"rootfs":{"diff_ids":["sha256:a"]}}`))
	desc, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	add("garbage", "", "not json")
	add("schema1", "", `{"schemaVersion":1}`)
	add("both", "", `{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}`)
	add("label", ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"config":{},"layers":[]}`)
	add("chart", "", `{"schemaVersion":2,"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json"},"layers":[]}`)
	add("empty", "", `{"schemaVersion":2,"manifests":[]}`)
	for _, name := range []string{"garbage", "schema1", "both", "label", "chart", "empty"} {
		if _, err := images.Open(t.Context(), s, ref(t, name), images.Options{}); !errors.Is(err, images.ErrNotImage) {
			t.Errorf("%s: %v, want ErrNotImage", name, err)
		}
	}
	add("diffids", "", fmt.Sprintf(`{"schemaVersion":2,"config":%s,"layers":[]}`, desc))
	add("weak", "", `{"schemaVersion":2,"config":{"mediaType":"`+ocispec.MediaTypeImageConfig+`","digest":"md5:aa"}}`)
	loop := s.AddBlob(ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[]}`))
	for range 8 {
		loop = s.AddIndex("", loop)
	}
	s.Name("deep", loop)
	for _, name := range []string{"diffids", "weak", "deep"} {
		if _, err := images.Open(t.Context(), s, ref(t, name), images.Options{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := images.Open(t.Context(), s, ref(t, "nobody"), images.Options{}); !errors.Is(err, images.ErrNotFound) {
		t.Errorf("missing: %v, want ErrNotFound", err)
	}
}

func TestOpenFirstStopsAtAFailureButNotAtAnAbsence(t *testing.T) {
	full, empty := imagestest.NewStore(), imagestest.NewStore()
	full.Add("app", imagestest.WithFiles(images.Config{User: "7"}, nil))
	img, err := images.OpenFirst(t.Context(), []images.Store{empty, full}, ref(t, "app"), images.Options{})
	if err != nil || img.Config.User != "7" {
		t.Errorf("after an empty store: %v", err)
	}
	broken := imagestest.NewStore()
	broken.Name("app", broken.AddBlob("", []byte("{")))
	if _, err := images.OpenFirst(t.Context(), []images.Store{broken, full}, ref(t, "app"), images.Options{}); err == nil {
		t.Error("a store that failed was passed over")
	}
	_, err = images.OpenFirst(t.Context(), []images.Store{empty, broken}, ref(t, "app"), images.Options{})
	if errors.Is(err, images.ErrNotFound) || !strings.Contains(fmt.Sprint(err), "(before that: ") {
		t.Errorf("a failure after an absence: %v, want both, as a failure", err)
	}
	if _, err := images.OpenFirst(t.Context(), nil, ref(t, "app"), images.Options{}); !errors.Is(err, images.ErrNotFound) {
		t.Errorf("no stores: %v", err)
	}
}

func TestUnlabelledIndexIsAskedForItsPlatform(t *testing.T) {
	s := imagestest.NewStore()
	arm := imagestest.WithFiles(images.Config{User: "2"}, nil)
	arm.Platform = ocispec.Platform{OS: "linux", Architecture: "arm64"}
	a, b := s.Add("", arm), s.Add("", imagestest.WithFiles(images.Config{User: "1"}, nil))
	a.Platform, b.Platform = nil, nil
	s.AddIndex("app", a, b)
	img, err := images.Open(t.Context(), s, ref(t, "app"), images.Options{})
	if err != nil || img.Config.User != "1" {
		t.Errorf("got %v", err)
	}
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
