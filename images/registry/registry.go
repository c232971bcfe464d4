// SPDX-License-Identifier: Apache-2.0

// Package registry finds images in OCI and Docker registries.
//
// A [Store] goes to the mirrors of a registry first, in order, then to the registry itself. It speaks HTTPS to every
// host but those named in [Options.Insecure], redirects and token servers included. What it downloads goes through a
// [cache.Dir], which checks it, so that a blob crosses the network once and a mirror that serves rubbish is passed over.
// A tag means what the first host that knows it says; only a digest binds a mirror to the original.
//
// go-containerregistry, which speaks the protocol, refuses redirects to and token servers on private or loopback IP
// addresses of another host, whatever Options say: name such a host by its DNS name.
package registry

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"portcullis/images"
	"portcullis/images/cache"
	"portcullis/internal/strictjson"
)

// Options configure a [Store]. Only Cache is required.
type Options struct {
	Cache     *cache.Dir                            // where downloads go
	Keychain  authn.Keychain                        // credentials; nil means none. See [DockerConfig]
	Mirrors   map[string][]string                   // registry ("docker.io") to the mirrors asked first, "host[:port][/prefix]"
	Insecure  []string                              // "host[:port]" that may be spoken to in plain HTTP
	Roots     *x509.CertPool                        // certificate authorities; nil means the system's. See [Roots]
	Proxy     func(*http.Request) (*url.URL, error) // nil means none; commands pass http.ProxyFromEnvironment
	UserAgent string                                // put before go-containerregistry's own
	Attempts  int                                   // per host and request; 0 means 3
	Backoff   time.Duration                         // wait before the second attempt, threefold before the next; 0 means 1 s
	Progress  func(Progress)                        // called as a blob arrives, from any goroutine; may be nil
	Log       *slog.Logger                          // receives the hosts passed over; nil means nobody
}

// Progress is how far the download of a blob is.
type Progress struct {
	Reference images.Reference
	Digest    digest.Digest
	Done      int64 // bytes
	Total     int64 // bytes; 0 when not known
}

// Store is an [images.Store] over registries. It may be used by any number of goroutines.
type Store struct {
	o      Options
	puller *remote.Puller
}

var _ images.ReferrerStore = (*Store)(nil)

// New makes a store. It does not go to the network.
func New(o Options) (*Store, error) {
	if o.Cache == nil {
		return nil, errors.New("registry store: no cache given")
	}
	if o.Keychain == nil {
		o.Keychain = authn.NewMultiKeychain()
	}
	if o.Attempts <= 0 {
		o.Attempts = 3
	}
	if o.Backoff <= 0 {
		o.Backoff = time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	puller, err := remote.NewPuller(
		remote.WithTransport(newTransport(o)),
		remote.WithAuthFromKeychain(o.Keychain),
		remote.WithUserAgent(o.UserAgent),
		remote.WithRetryBackoff(remote.Backoff{Duration: o.Backoff, Factor: 3, Jitter: 0.1, Steps: o.Attempts}),
	)
	if err != nil {
		return nil, fmt.Errorf("registry store: %w", err)
	}
	return &Store{o: o, puller: puller}, nil
}

// Resolve asks the hosts for the manifest, which a later Fetch then finds in the cache. A pinned reference that the cache
// holds is not asked for.
func (s *Store) Resolve(ctx context.Context, ref images.Reference) (images.Target, error) {
	if ref.Pinned() {
		if f, err := s.o.Cache.Get(ref.Digest); err == nil {
			return images.Target{Descriptor: ocispec.Descriptor{Digest: ref.Digest}}, f.Close()
		}
	}
	var target images.Target
	err := s.each(ctx, ref, func(repo name.Repository) error {
		var asked name.Reference = repo.Tag(ref.Tag)
		if ref.Pinned() {
			asked = repo.Digest(ref.Digest.String())
		}
		got, err := s.puller.Get(ctx, asked)
		if err != nil {
			return err
		}
		if got.MediaType.IsSchema1() {
			return fmt.Errorf("%w: a manifest of schema version 1; push the image again with a current tool", images.ErrNotImage)
		}
		target.Descriptor = ocispec.Descriptor{
			MediaType: string(got.MediaType), Digest: digest.Digest(got.Digest.String()), Size: got.Size,
		}
		return s.o.Cache.Put(target.Descriptor.Digest, got.Size, strings.NewReader(string(got.Manifest)))
	})
	return target, err
}

// Referrers asks the hosts until one knows of a manifest that refers to of. A registry of old is asked for the index that
// clients keep there under the digest as tag.
func (s *Store) Referrers(ctx context.Context, ref images.Reference, of digest.Digest) ([]ocispec.Descriptor, error) {
	var found []ocispec.Descriptor
	err := s.each(ctx, ref, func(repo name.Repository) error {
		index, err := remote.Referrers(repo.Digest(of.String()), remote.Reuse(s.puller), remote.WithContext(ctx))
		if err != nil {
			return err
		}
		raw, err := index.RawManifest()
		if err != nil {
			return err
		}
		var parsed ocispec.Index
		if err := strictjson.Unmarshal(raw, &parsed); err != nil {
			return fmt.Errorf("index of referrers: %w", err)
		}
		if len(parsed.Manifests) == 0 {
			return fmt.Errorf("%w: nothing refers to %s", images.ErrNotFound, of)
		}
		found = parsed.Manifests
		return nil
	})
	return found, err
}

// Fetch opens the blob or manifest d, downloading it into the cache unless it is there.
func (s *Store) Fetch(ctx context.Context, ref images.Reference, d ocispec.Descriptor) (io.ReadCloser, error) {
	f, err := s.o.Cache.Fetch(ctx, d.Digest, func() error {
		return s.each(ctx, ref, func(repo name.Repository) error {
			if isManifest(d) {
				got, err := s.puller.Get(ctx, repo.Digest(d.Digest.String()))
				if err != nil {
					return err
				}
				return s.o.Cache.Put(d.Digest, d.Size, strings.NewReader(string(got.Manifest)))
			}
			return s.download(ctx, ref, repo, d)
		})
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// isManifest tells what is under /manifests/ from what is under /blobs/. Only a pinned reference's content has no type.
func isManifest(d ocispec.Descriptor) bool {
	switch d.MediaType {
	case "", ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest,
		"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json":
		return true
	}
	return false
}

// download copies a blob into the cache. A connection lost on the way is tried again; go-containerregistry retries only
// until the answer begins.
func (s *Store) download(ctx context.Context, ref images.Reference, repo name.Repository, d ocispec.Descriptor) error {
	var failures []error
	wait := s.o.Backoff
	for attempt := range s.o.Attempts {
		if attempt > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return ctx.Err()
			}
			wait *= 3
		}
		layer, err := s.puller.Layer(ctx, repo.Digest(d.Digest.String()))
		if err != nil {
			return err
		}
		rc, err := layer.Compressed()
		if err != nil {
			return err // the library has already tried as often as it should
		}
		meter := &meter{r: rc, report: s.o.Progress, at: Progress{Reference: ref, Digest: d.Digest, Total: d.Size}}
		err = errors.Join(s.o.Cache.Put(d.Digest, d.Size, meter), rc.Close())
		if err == nil || errors.Is(err, os.ErrPermission) || ctx.Err() != nil {
			return err
		}
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

// each calls do for the mirrors of ref's registry and then for the registry, until one does it.
func (s *Store) each(ctx context.Context, ref images.Reference, do func(name.Repository) error) error {
	var failures []error
	absent := true
	for _, host := range append(slices.Clone(s.o.Mirrors[ref.Registry]), ref.Registry) {
		repo, err := s.repository(host, ref.Repository)
		if err == nil {
			err = do(repo)
		}
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		s.o.Log.Info("registry host passed over", "host", host, "image", ref.String(), "error", err)
		failures = append(failures, fmt.Errorf("%s: %w", host, err))
		absent = isAbsent(err)
	}
	// The registry's own word counts for whether the image exists; a mirror need not have everything.
	if absent {
		return fmt.Errorf("%w: %w", images.ErrNotFound, errors.Join(failures...))
	}
	return errors.Join(failures...)
}

func (s *Store) repository(host, path string) (name.Repository, error) {
	var o []name.Option
	hostname, _, _ := strings.Cut(host, "/")
	if isInsecure(s.o.Insecure, hostname) {
		o = append(o, name.Insecure)
	}
	return name.NewRepository(host+"/"+path, o...)
}

// isAbsent says whether a registry answered that it has no such thing.
func isAbsent(err error) bool {
	var t *transport.Error
	return errors.As(err, &t) && t.StatusCode == http.StatusNotFound || errors.Is(err, images.ErrNotFound)
}

// meter reports what passes through it.
type meter struct {
	r      io.Reader
	report func(Progress)
	at     Progress
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.at.Done += int64(n)
	if m.report != nil && n > 0 {
		m.report(m.at)
	}
	return n, err
}
