// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"portcullis/images"
	"portcullis/internal/imagestest"
)

// memoryFiles is a layout's tree in memory.
type memoryFiles map[string][]byte

func (m memoryFiles) open(name string) (io.ReadCloser, int64, error) {
	raw, ok := m[name]
	if !ok {
		return nil, 0, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return io.NopCloser(bytes.NewReader(raw)), int64(len(raw)), nil
}

func (memoryFiles) Close() error { return nil }

// FuzzIndex reads any bytes as a layout's index.json and looks an image up in it.
func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:x","annotations":{"org.opencontainers.image.ref.name":"latest"}}]}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"a","annotations":{"io.containerd.image.name":"app"}}]}`))
	ref, err := images.ParseReference("app")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := newStore("fuzz", memoryFiles{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": raw})
		if err != nil {
			return
		}
		if target, err := s.Resolve(t.Context(), ref); err == nil {
			if rc, err := s.Fetch(t.Context(), ref, target.Descriptor); err == nil {
				rc.Close()
				t.Fatalf("fetched %s from a layout without blobs", target.Descriptor.Digest)
			}
		}
	})
}

// FuzzArchive reads any bytes as an image archive.
func FuzzArchive(f *testing.F) {
	ref, err := images.ParseReference("app")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(imagestest.Tar(
		imagestest.Entry{Name: "c", Content: `{"rootfs":{"diff_ids":[]}}`},
		imagestest.Entry{Name: "manifest.json", Content: `[{"Config":"c","RepoTags":["app"],"Layers":[]}]`},
	))
	f.Add(imagestest.Tar(
		imagestest.Entry{Name: "oci-layout", Content: `{"imageLayoutVersion":"1.0.0"}`},
		imagestest.Entry{Name: "index.json", Content: `{"schemaVersion":2,"manifests":[]}`},
	))
	f.Fuzz(func(t *testing.T, raw []byte) {
		file := filepath.Join(t.TempDir(), "a.tar")
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := OpenArchive(file)
		if err != nil {
			return
		}
		defer a.Close()
		images.Open(t.Context(), a, ref, images.Options{})
	})
}
