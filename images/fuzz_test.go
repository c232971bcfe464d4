// SPDX-License-Identifier: Apache-2.0

package images

import (
	"bytes"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// FuzzLayer reads any bytes as a layer: decompression, tar, account files and their lines. Whatever it says must be
// bounded, and a user that it resolves must resolve again.
func FuzzLayer(f *testing.F) {
	for _, seed := range layerSeeds() {
		f.Add(seed)
	}
	limits := Limits{LayerSize: 1 << 20, Entries: 1000, File: 4096}.withDefaults()
	f.Fuzz(func(t *testing.T, raw []byte) {
		plain, err := decompress(bytes.NewReader(raw))
		if err != nil {
			return
		}
		defer plain.Close()
		view, err := readView(newLimitReader(plain, "layer", limits.LayerSize), limits)
		if err != nil {
			return
		}
		var files [2][]byte
		for n, name := range []string{passwdPath, groupPath} {
			files[n], _, err = view.look(name)
			if err != nil {
				return
			}
			if int64(len(files[n])) > limits.File {
				t.Fatalf("%s has %d bytes", name, len(files[n]))
			}
		}
		a := ParseAccounts(files[0], files[1])
		for _, u := range a.users {
			id, err := a.Identity(u.name)
			if err == nil && len(id.AdditionalGIDs) == 0 {
				t.Fatalf("%q has no groups", u.name)
			}
		}
	})
}

// FuzzManifest reads any bytes as an index or manifest.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:x"},"layers":[]}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:x","platform":{"os":"linux","architecture":"amd64"}}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d := ocispec.Descriptor{Digest: digestOf(raw)}
		fetch := &fetcher{ctx: t.Context(), store: bytesStore(raw), limits: Limits{}.withDefaults(), want: withPlatformDefaults(ocispec.Platform{})}
		fetch.descend(d, 0)
	})
}

func layerSeeds() [][]byte {
	tarball := tarOf("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nu:x:1:2:::\n", "etc/group", "g:x:3:u\n", "etc/.wh.x", "")
	return [][]byte{nil, tarball, gzipOf(tarball), zstdOf(tarball), bytes.Repeat([]byte{0}, 1024)}
}
