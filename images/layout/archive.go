// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"portcullis/images"
)

// dockerManifest is the file that makes a tar a docker archive.
const dockerManifest = "manifest.json"

// Archive is an [images.Store] over a tar file, which is not compressed.
type Archive interface {
	images.Store
	io.Closer
}

// OpenArchive opens what docker save wrote, or an OCI layout packed with tar.
func OpenArchive(file string) (Archive, error) {
	f, err := openTar(file)
	if err != nil {
		return nil, fmt.Errorf("opening image archive: %w", err)
	}
	a, err := newArchive(file, f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening image archive %s: %w", file, err), f.Close())
	}
	return a, nil
}

func newArchive(file string, f files) (Archive, error) {
	d := &dockerArchive{path: file, files: f, made: map[digest.Digest]content{}, hashed: map[string]digest.Digest{}}
	err := readJSON(f, dockerManifest, &d.entries)
	if errors.Is(err, fs.ErrNotExist) {
		return newStore(file, f)
	}
	if err != nil {
		return nil, err
	}
	if err := d.compose(); err != nil {
		return nil, err
	}
	return d, nil
}

// dockerArchive is what docker save writes. It has configurations and layers but not the registry's manifests; those it
// may hold are of the images as Docker stores them. So manifests are composed, and marked as local.
type dockerArchive struct {
	path    string
	files   files
	entries []dockerEntry
	made    map[digest.Digest]content // by digest: composed manifests, and where configs and layers are
	hashed  map[string]digest.Digest  // by name: files already hashed, since images share layers
}

var _ images.Store = (*dockerArchive)(nil)

// dockerEntry is an element of manifest.json.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string

	manifest ocispec.Descriptor // composed
}

// content is a file of the archive, or bytes.
type content struct {
	name  string
	bytes []byte
}

// compose makes a manifest for each entry. It hashes the archive's files once; what they are called proves nothing.
func (d *dockerArchive) compose() error {
	for n := range d.entries {
		e := &d.entries[n]
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}}
		m.SchemaVersion = 2
		var err error
		if m.Config, err = d.describe(e.Config, ocispec.MediaTypeImageConfig); err != nil {
			return err
		}
		for _, l := range e.Layers {
			layer, err := d.describe(l, ocispec.MediaTypeImageLayer)
			if err != nil {
				return err
			}
			m.Layers = append(m.Layers, layer)
		}
		raw, err := json.Marshal(m)
		if err != nil {
			return err
		}
		e.manifest = ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(raw), Size: int64(len(raw)),
		}
		d.made[e.manifest.Digest] = content{bytes: raw}
	}
	return nil
}

func (d *dockerArchive) describe(name, mediaType string) (ocispec.Descriptor, error) {
	rc, size, err := d.files.open(name)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer rc.Close()
	sum, ok := d.hashed[name]
	if !ok {
		if sum, err = digest.FromReader(rc); err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("%s: %w", name, err)
		}
		d.hashed[name] = sum
		d.made[sum] = content{name: name}
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: sum, Size: size}, nil
}

// Resolve finds ref by its tag. An archive cannot say what a registry's digest stands for.
func (d *dockerArchive) Resolve(_ context.Context, ref images.Reference) (images.Target, error) {
	var tags []string
	for _, e := range d.entries {
		for _, tag := range e.RepoTags {
			if names(tag, ref) && !ref.Pinned() {
				return images.Target{Descriptor: e.manifest, Local: true}, nil
			}
			tags = append(tags, tag)
		}
	}
	return images.Target{}, fmt.Errorf("archive %s: %w: %s; %s", d.path, images.ErrNotFound, ref, listed(tags))
}

// Fetch opens a composed manifest, a configuration or a layer.
func (d *dockerArchive) Fetch(_ context.Context, _ images.Reference, want ocispec.Descriptor) (io.ReadCloser, error) {
	c, ok := d.made[want.Digest]
	if !ok {
		return nil, fmt.Errorf("archive %s: %s: %w", d.path, want.Digest, fs.ErrNotExist)
	}
	if c.bytes != nil {
		return io.NopCloser(bytes.NewReader(c.bytes)), nil
	}
	rc, _, err := d.files.open(c.name)
	return rc, err
}

// Close releases the archive.
func (d *dockerArchive) Close() error { return d.files.Close() }
