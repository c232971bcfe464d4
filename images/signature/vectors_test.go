// SPDX-License-Identifier: Apache-2.0

//go:build vectors

package signature_test

import (
	"flag"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var cosign = flag.String("cosign", "cosign", "the cosign program")

// TestVectors makes testdata/signed with cosign 2, under new keys:
//
//	go test -tags vectors ./images/signature -run TestVectors -cosign /usr/bin/cosign
func TestVectors(t *testing.T) {
	v := newVectors(t, "testdata/signed")
	v.cosign("generate-key-pair", "--output-key-prefix", filepath.Join(v.keys, "ec"))
	v.run("openssl", "genrsa", "-out", filepath.Join(v.keys, "rsa.pem"), "2048")
	v.cosign("import-key-pair", "--key", filepath.Join(v.keys, "rsa.pem"), "--output-key-prefix", filepath.Join(v.keys, "rsa"))
	for _, key := range []string{"ec", "rsa"} {
		text, err := os.ReadFile(filepath.Join(v.keys, key+".pub"))
		v.check(err)
		v.check(os.WriteFile("testdata/"+key+".pub", text, 0o644))
		image := v.image(key)
		v.check(remote.Write(v.ref(key+":v1"), image))
		v.sign(key+":v1", key)
		v.keep(key+":v1", image)
	}
	plain := v.image("plain")
	v.check(remote.Write(v.ref("plain:v1"), plain))
	v.keep("plain:v1", plain)

	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
		Add: v.image("index"), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}},
	})
	v.check(remote.WriteIndex(v.ref("index:v1"), index))
	v.sign("index:v1", "ec")
	v.check(v.out.AppendIndex(index, named("index:v1")))
}

// TestBundleVectors makes testdata/bundled with cosign 3, under a new key:
//
//	go test -tags vectors ./images/signature -run TestBundleVectors -cosign /usr/bin/cosign
func TestBundleVectors(t *testing.T) {
	v := newVectors(t, "testdata/bundled")
	v.cosign("generate-key-pair", "--output-key-prefix", filepath.Join(v.keys, "ec"))
	text, err := os.ReadFile(filepath.Join(v.keys, "ec.pub"))
	v.check(err)
	v.check(os.WriteFile("testdata/bundled.pub", text, 0o644))
	image := v.image("bundled")
	v.check(remote.Write(v.ref("bundled:v1"), image))
	v.keep("bundled:v1", image)
	digest, err := image.Digest()
	v.check(err)
	v.cosign("sign", "--yes", "--use-signing-config=false", "--tlog-upload=false", "--key", filepath.Join(v.keys, "ec.key"),
		v.host+"/bundled@"+digest.String())
	tag := "bundled:sha256-" + digest.Hex
	referrers, err := remote.Index(v.ref(tag))
	v.check(err)
	v.check(v.out.AppendIndex(referrers, named(tag)))
}

// newVectors starts a registry, and a layout in a folder.
func newVectors(t *testing.T, folder string) *vectors {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	out, err := layout.Write(folder, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	return &vectors{t: t, host: strings.TrimPrefix(server.URL, "http://"), keys: t.TempDir(), out: out}
}

// vectors are signed images in the making.
type vectors struct {
	t    *testing.T
	host string // of the registry
	keys string // folder
	out  layout.Path
}

// image makes an image without layers.
func (v *vectors) image(name string) v1.Image {
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{User: "1000:1000", Entrypoint: []string{"/" + name}}})
	v.check(err)
	return image
}

// sign has cosign sign what is in the registry under a name, and keeps the signatures.
func (v *vectors) sign(image, key string) {
	v.cosign("sign", "--yes", "--tlog-upload=false", "--key", filepath.Join(v.keys, key+".key"), v.host+"/"+image)
	head, err := remote.Head(v.ref(image))
	v.check(err)
	tag := strings.TrimSuffix(image, ":v1") + ":sha256-" + head.Digest.Hex + ".sig"
	signatures, err := remote.Image(v.ref(tag))
	v.check(err)
	v.keep(tag, signatures)
}

func (v *vectors) keep(image string, content v1.Image) {
	v.check(v.out.AppendImage(content, named(image)))
}

func named(image string) layout.Option {
	return layout.WithAnnotations(map[string]string{ocispec.AnnotationRefName: "registry.example/" + image})
}

func (v *vectors) ref(image string) name.Reference {
	ref, err := name.ParseReference(v.host + "/" + image)
	v.check(err)
	return ref
}

func (v *vectors) cosign(args ...string) { v.run(*cosign, args...) }

func (v *vectors) run(program string, args ...string) {
	v.t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "COSIGN_PASSWORD=")
	if out, err := cmd.CombinedOutput(); err != nil {
		v.t.Fatalf("%s %s: %v\n%s", program, args[0], err, out)
	}
}

func (v *vectors) check(err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
}
