// SPDX-License-Identifier: Apache-2.0

// Package imagestest makes container images for tests: in memory, as an images.Store, or as an OCI layout on disk.
package imagestest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"portcullis/images"
)

// Compression is how a layer is stored.
type Compression int

// The compressions that image layers have.
const (
	Gzip Compression = iota
	Zstd
	None
)

// Image is what an image is made of. Times and owners are fixed, so equal images have equal digests.
type Image struct {
	Platform    ocispec.Platform // zero means linux/amd64
	Config      images.Config
	Layers      [][]byte // tars, lowest first; see [Tar]
	Compression Compression
}

// WithFiles makes an image of one layer, holding the files given by path, and their directories.
func WithFiles(config images.Config, files map[string]string) Image {
	var headers []Entry
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		for i, r := range name {
			if dir := name[:i]; r == '/' && !seen[dir] {
				seen[dir] = true
				headers = append(headers, Entry{Name: dir + "/", Type: tar.TypeDir})
			}
		}
		headers = append(headers, Entry{Name: name, Content: files[name]})
	}
	return Image{Config: config, Layers: [][]byte{Tar(headers...)}}
}

// Entry is an entry of a layer. Type 0 means a regular file.
type Entry struct {
	Name    string
	Type    byte
	Content string
	Link    string
}

// Tar packs entries in the order given. It panics on an entry that no tar can hold.
func Tar(entries ...Entry) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.Name, Typeflag: e.Type, Linkname: e.Link, Size: int64(len(e.Content)), Mode: 0o644}
		if e.Type == 0 {
			h.Typeflag = tar.TypeReg
		}
		if e.Type == tar.TypeDir {
			h.Mode = 0o755
		}
		must(w.WriteHeader(h))
		_, err := io.WriteString(w, e.Content)
		must(err)
	}
	must(w.Close())
	return buf.Bytes()
}

// Store holds images in memory. It may be changed to hold wrong ones.
type Store struct {
	Blobs map[digest.Digest][]byte
	Names map[string]ocispec.Descriptor // by normalised reference

	mu      sync.Mutex
	fetched map[digest.Digest]int
}

var _ images.Store = (*Store)(nil)

// NewStore makes an empty store.
func NewStore() *Store {
	return &Store{
		Blobs: map[digest.Digest][]byte{}, Names: map[string]ocispec.Descriptor{}, fetched: map[digest.Digest]int{},
	}
}

// Add puts img under the name ref, unless that is "", and returns its manifest.
func (s *Store) Add(ref string, img Image) ocispec.Descriptor {
	platform := img.Platform
	if platform.OS == "" {
		platform = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	}
	config := ocispec.Image{Platform: platform, RootFS: ocispec.RootFS{Type: "layers"}}
	config.Config = ocispec.ImageConfig{
		User: img.Config.User, Env: img.Config.Env, Entrypoint: img.Config.Entrypoint, Cmd: img.Config.Cmd,
		WorkingDir: img.Config.WorkingDir,
	}
	if len(img.Config.Volumes) > 0 {
		config.Config.Volumes = map[string]struct{}{}
		for _, v := range img.Config.Volumes {
			config.Config.Volumes[v] = struct{}{}
		}
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	m.Layers = []ocispec.Descriptor{}
	for _, l := range img.Layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(l))
		mediaType, blob := img.Compression.pack(l)
		m.Layers = append(m.Layers, s.AddBlob(mediaType, blob))
	}
	m.Config = s.AddBlob(ocispec.MediaTypeImageConfig, toJSON(config))
	d := s.AddBlob(ocispec.MediaTypeImageManifest, toJSON(m))
	s.Name(ref, d)
	d.Platform = &platform
	return d
}

// AddIndex puts an index of manifests under the name ref, unless that is "".
func (s *Store) AddIndex(ref string, manifests ...ocispec.Descriptor) ocispec.Descriptor {
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests,
	}
	d := s.AddBlob(ocispec.MediaTypeImageIndex, toJSON(index))
	s.Name(ref, d)
	return d
}

// AddBlob stores content as it is.
func (s *Store) AddBlob(mediaType string, content []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	s.Blobs[d.Digest] = content
	return d
}

// Name makes ref, unless it is "", stand for d. It panics if ref is not a reference.
func (s *Store) Name(ref string, d ocispec.Descriptor) {
	if ref == "" {
		return
	}
	r, err := images.ParseReference(ref)
	must(err)
	s.Names[r.String()] = d
}

// Resolve implements images.Store.
func (s *Store) Resolve(_ context.Context, ref images.Reference) (images.Target, error) {
	if ref.Pinned() {
		if _, ok := s.Blobs[ref.Digest]; ok {
			return images.Target{Descriptor: ocispec.Descriptor{Digest: ref.Digest}}, nil
		}
	} else if d, ok := s.Names[ref.String()]; ok {
		return images.Target{Descriptor: d}, nil
	}
	return images.Target{}, fmt.Errorf("memory: %w: %s", images.ErrNotFound, ref)
}

// Fetch implements images.Store.
func (s *Store) Fetch(_ context.Context, _ images.Reference, d ocispec.Descriptor) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	content, ok := s.Blobs[d.Digest]
	if !ok {
		return nil, fmt.Errorf("memory: no blob %s", d.Digest)
	}
	s.fetched[d.Digest]++
	return io.NopCloser(bytes.NewReader(content)), nil
}

// Fetched is how often the content d was fetched.
func (s *Store) Fetched(d digest.Digest) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fetched[d]
}

// WriteLayout writes the store's images to dir as an OCI layout, each under its whole name.
func (s *Store) WriteLayout(dir string) error {
	blobs := filepath.Join(dir, ocispec.ImageBlobsDir, "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	for d, content := range s.Blobs {
		if err := os.WriteFile(filepath.Join(blobs, d.Encoded()), content, 0o644); err != nil {
			return err
		}
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{}}
	for _, name := range slices.Sorted(maps.Keys(s.Names)) {
		d := s.Names[name]
		d.Annotations = map[string]string{ocispec.AnnotationRefName: name}
		index.Manifests = append(index.Manifests, d)
	}
	if err := os.WriteFile(filepath.Join(dir, ocispec.ImageIndexFile), toJSON(index), 0o644); err != nil {
		return err
	}
	marker := toJSON(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	return os.WriteFile(filepath.Join(dir, ocispec.ImageLayoutFile), marker, 0o644)
}

func (c Compression) pack(layer []byte) (mediaType string, blob []byte) {
	var buf bytes.Buffer
	var w io.WriteCloser
	switch c {
	case None:
		return ocispec.MediaTypeImageLayer, layer
	case Zstd:
		zw, err := zstd.NewWriter(&buf)
		must(err)
		mediaType, w = ocispec.MediaTypeImageLayerZstd, zw
	default:
		mediaType, w = ocispec.MediaTypeImageLayerGzip, gzip.NewWriter(&buf)
	}
	_, err := w.Write(layer)
	must(err)
	must(w.Close())
	return mediaType, buf.Bytes()
}

func toJSON(v any) []byte {
	raw, err := json.Marshal(v)
	must(err)
	return raw
}

// must is for what cannot fail with the arguments that tests give.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
