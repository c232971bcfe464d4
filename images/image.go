// SPDX-License-Identifier: Apache-2.0

package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrNotFound says that a store does not hold the image asked for. Any other error of a store is a failure to look.
var ErrNotFound = errors.New("image not found")

// Store is one place where images are. Implementations need not check digests: [Open] does.
type Store interface {
	// Resolve finds the manifest or index that ref names. It returns an error wrapping [ErrNotFound] when the store has
	// no such image.
	Resolve(ctx context.Context, ref Reference) (Target, error)

	// Fetch opens the content d of the image ref. The caller closes it.
	Fetch(ctx context.Context, ref Reference, d ocispec.Descriptor) (io.ReadCloser, error)
}

// ReferrerStore is a [Store] that knows which manifests refer to another one, as their "subject" (OCI distribution
// specification 1.1, "listing referrers").
type ReferrerStore interface {
	Store

	// Referrers describes the manifests that refer to the manifest of, in the repository of ref. It returns an error wrapping
	// [ErrNotFound] when there is none.
	Referrers(ctx context.Context, ref Reference, of digest.Digest) ([]ocispec.Descriptor, error)
}

// Target is what a reference stands for in a store.
type Target struct {
	// Descriptor has the digest. Size 0 and MediaType "" mean unknown.
	Descriptor ocispec.Descriptor

	// Local says that the manifest was made up by the store (docker archives keep none), so that its digest is of no use
	// to anybody else.
	Local bool
}

// Options say which image to open, of those that a reference can stand for, and within which bounds.
type Options struct {
	Platform ocispec.Platform // zero means linux/amd64; an empty variant means the architecture's plain one
	Limits   Limits
}

// Digests identify an image. Manifest is what a runtime pulls for the platform; a reference may be pinned to Index, which
// holds for every platform, or to Manifest.
type Digests struct {
	Index    digest.Digest // "" when the reference names a manifest directly
	Manifest digest.Digest // "" when the store keeps no manifest (docker archives)
	Config   digest.Digest // what Docker calls the image id
}

// Lock is the digest to pin a reference to: the index where there is one, else the manifest, else "".
func (d Digests) Lock() digest.Digest {
	if d.Index != "" {
		return d.Index
	}
	return d.Manifest
}

// Config is what the image's configuration says of the process, as written there.
type Config struct {
	User       string   // "user[:group]", names or numbers; "" means root
	Env        []string // "KEY=value"
	Entrypoint []string
	Cmd        []string
	WorkingDir string   // "" means "/"
	StopSignal string   // "SIGQUIT", "3"; "" means SIGTERM
	Volumes    []string // paths, sorted
}

// Image is an image of one platform: its identity, its configuration, and its layers, still unread.
type Image struct {
	Reference Reference
	Digests   Digests
	Platform  ocispec.Platform
	Config    Config
	Layers    []Layer // lowest first

	limits Limits

	mu       sync.Mutex // guards accounts
	accounts *Accounts
}

// ChainIDs are the OCI chain ids of the layers, lowest first: chain id i stands for the layers 0 to i applied in order.
func (i *Image) ChainIDs() []digest.Digest {
	ids := make([]digest.Digest, len(i.Layers))
	for n, l := range i.Layers {
		ids[n] = l.DiffID
	}
	return identity.ChainIDs(ids)
}

// OpenFirst is [Open] on the first of stores that has the image. A store that fails, rather than not having it, ends the
// search: another store's answer could be another image.
func OpenFirst(ctx context.Context, stores []Store, ref Reference, o Options) (*Image, error) {
	var missing []error
	for _, s := range stores {
		img, err := Open(ctx, s, ref, o)
		if err == nil {
			return img, nil
		}
		if !errors.Is(err, ErrNotFound) {
			return nil, lookedIn(err, missing)
		}
		missing = append(missing, err)
	}
	if len(missing) == 0 {
		return nil, ErrNotFound
	}
	return nil, errors.Join(missing...)
}

// lookedIn is the failure of a store after others that lack the image: a name that is only misspelt in those is seen at once.
func lookedIn(failure error, missing []error) error {
	for _, m := range missing {
		failure = fmt.Errorf("%w (before that: %s)", failure, errors.Unwrap(m).Error())
	}
	return failure
}
