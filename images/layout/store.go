// SPDX-License-Identifier: Apache-2.0

// Package layout finds images in OCI image layouts, as a directory or packed into a tar archive, and in the archives that
// docker save writes.
//
// An OCI layout's images are found by the annotation org.opencontainers.image.ref.name (or io.containerd.image.name,
// which buildx and ctr write), holding an image's name or only a tag. A pinned reference is found by its digest.
package layout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"portcullis/images"
	"portcullis/internal/bounded"
	"portcullis/internal/strictjson"
)

// containerdName is an annotation that holds a whole image name where ref.name holds only the tag.
const containerdName = "io.containerd.image.name"

// maxIndex bounds index.json and manifest.json in bytes.
const maxIndex = 16 << 20

// files is a layout's tree: a directory or the inside of an archive.
type files interface {
	// open opens a regular file; the error wraps fs.ErrNotExist when there is none.
	open(name string) (content io.ReadCloser, size int64, err error)
	Close() error
}

// Store is an [images.Store] over an OCI layout. It may be used by any number of goroutines.
type Store struct {
	path  string
	files files
	index ocispec.Index

	mu     sync.Mutex // guards tagsOf
	tagsOf string     // the one repository that bare tags were taken to be of; "" before the first
}

var _ images.Store = (*Store)(nil)

// Open opens the OCI layout in the directory dir.
func Open(dir string) (*Store, error) {
	f, err := openDir(dir)
	if err != nil {
		return nil, fmt.Errorf("opening OCI layout: %w", err)
	}
	s, err := newStore(dir, f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening OCI layout %s: %w", dir, err), f.Close())
	}
	return s, nil
}

// Close releases the directory or archive.
func (s *Store) Close() error { return s.files.Close() }

func newStore(path string, f files) (*Store, error) {
	var marker ocispec.ImageLayout
	err := readJSON(f, ocispec.ImageLayoutFile, &marker)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("it is none: there is no file %s in it", ocispec.ImageLayoutFile)
	}
	if err != nil {
		return nil, err
	}
	if marker.Version != ocispec.ImageLayoutVersion {
		return nil, fmt.Errorf("layout version %.40q, want %q", marker.Version, ocispec.ImageLayoutVersion)
	}
	s := &Store{path: path, files: f}
	if err := readJSON(f, ocispec.ImageIndexFile, &s.index); err != nil {
		return nil, err
	}
	if s.index.SchemaVersion != 2 {
		return nil, fmt.Errorf("%s: schema version %d, want 2", ocispec.ImageIndexFile, s.index.SchemaVersion)
	}
	return s, nil
}

func readJSON(f files, name string, into any) error {
	rc, size, err := f.open(name)
	if err != nil {
		return err
	}
	defer rc.Close()
	if size > maxIndex {
		return fmt.Errorf("%s: %w", name, &images.LimitError{What: "index", Limit: maxIndex})
	}
	raw, err := bounded.ReadAll(rc, maxIndex)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := strictjson.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Resolve finds ref in the layout's index. Two different images under one name are an error. A bare tag does not say whose
// it is, so the first repository that is found by one is the only one that this store will find by them.
func (s *Store) Resolve(_ context.Context, ref images.Reference) (images.Target, error) {
	if ref.Pinned() {
		return s.resolveDigest(ref)
	}
	named, tagged, err := match(s.index.Manifests, ref)
	switch {
	case err != nil:
		return images.Target{}, fmt.Errorf("layout %s: %w", s.path, err)
	case named != nil:
		return images.Target{Descriptor: *named}, nil
	case tagged == nil:
		return images.Target{}, fmt.Errorf("layout %s: %w: %s; %s", s.path, images.ErrNotFound, ref, s.holds())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tagsOf == "" {
		s.tagsOf = ref.Name()
	}
	if s.tagsOf != ref.Name() {
		return images.Target{}, fmt.Errorf("layout %s: has the bare tag %q, which was taken for %s and so cannot be %s; "+
			"annotate its manifests with whole image names", s.path, ref.Tag, s.tagsOf, ref.Name())
	}
	return images.Target{Descriptor: *tagged}, nil
}

// holds says what the layout has, for somebody who asked for something else.
func (s *Store) holds() string {
	var all []string
	for _, d := range s.index.Manifests {
		if name := cmp.Or(d.Annotations[containerdName], d.Annotations[ocispec.AnnotationRefName]); name != "" {
			all = append(all, name)
		}
	}
	if len(all) == 0 {
		return listed(all) + "; annotate its manifests with whole image names as " + ocispec.AnnotationRefName
	}
	return listed(all)
}

// shownNames is how many names an error lists.
const shownNames = 5

func listed(names []string) string {
	if len(names) == 0 {
		return "it names none"
	}
	var quoted []string
	for n, name := range names {
		if n == shownNames {
			quoted = append(quoted, fmt.Sprintf("%d more", len(names)-n))
			break
		}
		quoted = append(quoted, strconv.Quote(name))
	}
	return "it has " + strings.Join(quoted, ", ")
}

// match finds ref by name or else, and separately, by bare tag. A manifest with a whole name has no bare tag.
func match(manifests []ocispec.Descriptor, ref images.Reference) (named, tagged *ocispec.Descriptor, err error) {
	var byName, byTag []ocispec.Descriptor
	for _, d := range manifests {
		full, name := d.Annotations[containerdName], d.Annotations[ocispec.AnnotationRefName]
		switch {
		case names(full, ref) || names(name, ref):
			byName = append(byName, d)
		case full == "" && name == ref.Tag:
			byTag = append(byTag, d)
		}
	}
	if len(byName) > 0 {
		named, err = only(byName, ref)
		return named, nil, err
	}
	tagged, err = only(byTag, ref)
	return nil, tagged, err
}

// names says whether an annotation, which may be empty, is a name of ref.
func names(annotation string, ref images.Reference) bool {
	r, err := images.ParseReference(annotation)
	return err == nil && r == ref
}

// only is the one thing that all of found are, nil for none.
func only(found []ocispec.Descriptor, ref images.Reference) (*ocispec.Descriptor, error) {
	for _, d := range found {
		if d.Digest != found[0].Digest {
			return nil, fmt.Errorf("%s is ambiguous: both %s and %s have that name", ref, found[0].Digest, d.Digest)
		}
	}
	if len(found) == 0 {
		return nil, nil
	}
	return &found[0], nil
}

// resolveDigest finds content by digest, listed in the index or below it.
func (s *Store) resolveDigest(ref images.Reference) (images.Target, error) {
	for _, d := range s.index.Manifests {
		if d.Digest == ref.Digest {
			return images.Target{Descriptor: d}, nil
		}
	}
	rc, err := openBlob(s.files, ref.Digest)
	if errors.Is(err, fs.ErrNotExist) {
		return images.Target{}, fmt.Errorf("layout %s: %w: %s", s.path, images.ErrNotFound, ref)
	}
	if err != nil {
		return images.Target{}, fmt.Errorf("layout %s: %w", s.path, err)
	}
	return images.Target{Descriptor: ocispec.Descriptor{Digest: ref.Digest}}, rc.Close()
}

// Fetch opens a blob of the layout.
func (s *Store) Fetch(_ context.Context, _ images.Reference, d ocispec.Descriptor) (io.ReadCloser, error) {
	rc, err := openBlob(s.files, d.Digest)
	if err != nil {
		return nil, fmt.Errorf("layout %s: %w", s.path, err)
	}
	return rc, nil
}

func openBlob(f files, sum digest.Digest) (io.ReadCloser, error) {
	// A digest names a path here, so it must be one.
	if err := sum.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w", sum, err)
	}
	rc, _, err := f.open(ocispec.ImageBlobsDir + "/" + sum.Algorithm().String() + "/" + sum.Encoded())
	return rc, err
}
