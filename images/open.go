// SPDX-License-Identifier: Apache-2.0

package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"portcullis/internal/strictjson"
)

// Media types of Docker's distribution format, which the OCI image specification was made from.
const (
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
)

// maxIndexDepth bounds indexes that point to indexes.
const maxIndexDepth = 4

// ErrNotImage says that a reference stands for something that no container can run: a chart, a signature, an old manifest.
var ErrNotImage = errors.New("not a container image")

// PlatformError says that an image does not exist for the platform asked for.
type PlatformError struct {
	Got  []string // platforms that the image exists for
	Want string
}

func (e *PlatformError) Error() string {
	return fmt.Sprintf("image is not available for %s, only for %s", e.Want, strings.Join(e.Got, ", "))
}

// Open resolves ref in store and reads manifest and configuration, but no layer. Everything it read has the digest that
// the reference, the index and the manifest give it.
func Open(ctx context.Context, store Store, ref Reference, o Options) (*Image, error) {
	f := &fetcher{ctx: ctx, store: store, ref: ref, limits: o.Limits.withDefaults(), want: withPlatformDefaults(o.Platform)}
	img, err := f.image()
	if err != nil {
		return nil, fmt.Errorf("opening image %s: %w", ref, err)
	}
	return img, nil
}

// fetcher carries what the steps of one Open share.
type fetcher struct {
	ctx    context.Context
	store  Store
	ref    Reference
	limits Limits
	want   ocispec.Platform
}

func (f *fetcher) image() (*Image, error) {
	target, err := f.store.Resolve(f.ctx, f.ref)
	if err != nil {
		return nil, err
	}
	if f.ref.Pinned() && target.Descriptor.Digest != f.ref.Digest {
		return nil, fmt.Errorf("store answered with %s, not with the digest of the reference", target.Descriptor.Digest)
	}
	found, err := f.descend(target.Descriptor, 0)
	if err != nil {
		return nil, err
	}
	img := &Image{
		Reference: f.ref,
		Digests:   Digests{Manifest: found.digest, Config: found.manifest.Config.Digest},
		Platform:  found.config.Platform,
		Config:    configOf(found.config.Config),
		limits:    f.limits,
	}
	if found.digest != target.Descriptor.Digest {
		img.Digests.Index = target.Descriptor.Digest
	}
	if target.Local {
		img.Digests.Index, img.Digests.Manifest = "", ""
	}
	img.Layers, err = f.layers(found)
	return img, err
}

// found is a manifest of the platform wanted, with its configuration.
type found struct {
	digest   digest.Digest
	manifest ocispec.Manifest
	config   ocispec.Image
}

// document is what an index and a manifest look like before it is known which of them it is.
type document struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	Manifests     []ocispec.Descriptor `json:"manifests"`
	Config        *ocispec.Descriptor  `json:"config"`
	Layers        []ocispec.Descriptor `json:"layers"`
}

// descend follows indexes from d to the manifest of the platform wanted.
func (f *fetcher) descend(d ocispec.Descriptor, depth int) (*found, error) {
	if depth > maxIndexDepth {
		return nil, fmt.Errorf("index %s: nested more than %d deep", d.Digest, maxIndexDepth)
	}
	raw, err := f.read(d, "manifest", f.limits.Manifest)
	if err != nil {
		return nil, err
	}
	var doc document
	if err := strictjson.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("manifest %s: %w: %w", d.Digest, ErrNotImage, err)
	}
	if doc.SchemaVersion != 2 {
		return nil, fmt.Errorf("manifest %s: %w: schema version %d, want 2; push the image again with a current tool",
			d.Digest, ErrNotImage, doc.SchemaVersion)
	}
	// Content that is an index to one reader and a manifest to another would be two images with one digest
	// (CVE-2021-41190), so both readings and both labels must agree.
	isIndex, isManifest := doc.Manifests != nil, doc.Config != nil || doc.Layers != nil
	for _, label := range []string{doc.MediaType, d.MediaType} {
		isIndex = isIndex || label == ocispec.MediaTypeImageIndex || label == dockerList
		isManifest = isManifest || label == ocispec.MediaTypeImageManifest || label == dockerManifest
	}
	switch {
	case isIndex && isManifest:
		return nil, fmt.Errorf("manifest %s: %w: it is an index and a manifest at once", d.Digest, ErrNotImage)
	case isIndex:
		return f.choose(doc.Manifests, depth)
	case doc.Config == nil:
		return nil, fmt.Errorf("manifest %s: %w: no config", d.Digest, ErrNotImage)
	}
	m := ocispec.Manifest{Config: *doc.Config, Layers: doc.Layers}
	return f.manifest(d.Digest, m)
}

// manifest reads the configuration that m names and checks that the two agree.
func (f *fetcher) manifest(d digest.Digest, m ocispec.Manifest) (*found, error) {
	if t := m.Config.MediaType; t != ocispec.MediaTypeImageConfig && t != dockerConfig {
		return nil, fmt.Errorf("manifest %s: %w: its config has the media type %q", d, ErrNotImage, t)
	}
	if len(m.Layers) > f.limits.Layers {
		return nil, &LimitError{What: "number of layers", Limit: int64(f.limits.Layers)}
	}
	raw, err := f.read(m.Config, "config", f.limits.Config)
	if err != nil {
		return nil, err
	}
	var config ocispec.Image
	if err := strictjson.Unmarshal(raw, &config); err != nil {
		return nil, fmt.Errorf("config %s: %w", m.Config.Digest, err)
	}
	if len(config.RootFS.DiffIDs) != len(m.Layers) {
		return nil, fmt.Errorf("config %s: has %d diff ids, its manifest has %d layers",
			m.Config.Digest, len(config.RootFS.DiffIDs), len(m.Layers))
	}
	if !satisfies(config.Platform, f.want) {
		return nil, &PlatformError{Got: []string{platformString(config.Platform)}, Want: platformString(f.want)}
	}
	return &found{digest: d, manifest: m, config: config}, nil
}

func (f *fetcher) layers(found *found) ([]Layer, error) {
	layers := make([]Layer, len(found.manifest.Layers))
	for n, d := range found.manifest.Layers {
		diffID := found.config.RootFS.DiffIDs[n]
		if err := errors.Join(checkDigest(d.Digest), checkDigest(diffID)); err != nil {
			return nil, fmt.Errorf("layer %d: %w", n, err)
		}
		if d.Size < 0 || d.Size > f.limits.Blob {
			return nil, fmt.Errorf("layer %d: %w", n, &LimitError{What: "stored layer", Limit: f.limits.Blob})
		}
		layers[n] = Layer{
			Digest: d.Digest, DiffID: diffID, MediaType: d.MediaType, Size: d.Size,
			descriptor: d, store: f.store, ref: f.ref, limits: f.limits,
		}
	}
	return layers, nil
}

// Content returns the whole content of d beside the image ref, at most limit bytes, checked against its digest and, where known,
// its size. Over the limit the error wraps a [*LimitError].
func Content(ctx context.Context, store Store, ref Reference, d ocispec.Descriptor, limit int64) ([]byte, error) {
	f := &fetcher{ctx: ctx, store: store, ref: ref}
	return f.read(d, "content", limit)
}

// read returns the content of d, checked against its digest and, where known, its size.
func (f *fetcher) read(d ocispec.Descriptor, what string, limit int64) ([]byte, error) {
	if err := checkDigest(d.Digest); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if d.Size > limit {
		return nil, fmt.Errorf("%s %s: %w", what, d.Digest, &LimitError{What: what, Limit: limit})
	}
	rc, err := f.store.Fetch(f.ctx, f.ref, d)
	if err != nil {
		return nil, fmt.Errorf("fetching %s %s: %w", what, d.Digest, err)
	}
	defer rc.Close()
	raw, err := io.ReadAll(newVerifier(newLimitReader(rc, what, limit), what, d))
	if err != nil {
		return nil, fmt.Errorf("reading %s %s: %w", what, d.Digest, err)
	}
	return raw, nil
}

func configOf(c ocispec.ImageConfig) Config {
	return Config{
		User: c.User, Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd, WorkingDir: c.WorkingDir, StopSignal: c.StopSignal,
		Volumes: slices.Sorted(maps.Keys(c.Volumes)),
	}
}
