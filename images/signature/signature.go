// SPDX-License-Identifier: Apache-2.0

// Package signature checks who signed an image, by the signatures that cosign keeps beside it in a registry or layout.
//
// There are two forms. Until its second release, cosign stored the layers of a manifest tagged sha256-<digest>.sig in the
// image's own repository, each a payload of the format "simple signing" with its signature in an annotation (cosign,
// specs/SIGNATURE_SPEC.md). Since its third it stores Sigstore bundles, in artifacts that refer to the image (OCI
// distribution specification 1.1, "referrers"). What counts is the digest: an image may be signed under another name, as
// mirrors have it.
package signature

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/sigstore/sigstore-go/pkg/bundle"

	"portcullis/images"
)

// Bounds on what a registry answers.
const (
	maxManifest   = 4 << 20
	maxPayload    = 64 << 10
	maxBundle     = 1 << 20
	maxSignatures = 128 // of one image, in each form
)

// ErrUnsigned says that no signature of an image is where the image is looked for. It wraps [images.ErrUntrusted].
var ErrUnsigned = fmt.Errorf("%w: no signature of cosign's is beside it", images.ErrUntrusted)

// ErrForeign says that an image has signatures, and none of them is by a signer that was given. It wraps
// [images.ErrUntrusted].
var ErrForeign = fmt.Errorf("%w: no signature beside it is by a key or identity that was given", images.ErrUntrusted)

// Signer is somebody whose signatures count: [NewKey], [NewIdentity].
type Signer interface {
	// simple says whether the signer made this signature.
	simple(s simpleSignature) bool
	// bundled says whether the signer signed the image of this digest.
	bundled(b *bundle.Bundle, image digest.Digest) bool
}

// Signers are those any of whom may have signed.
type Signers []Signer

// Verify looks for a signature by one of the signers on what the image's reference is pinned to, in the first of stores that has
// any signature of it. Of an index that is the index: a signed manifest in an index of somebody else's is not enough, for a
// runtime may choose another one. The error wraps [ErrUnsigned], [ErrForeign], or is a failure to look.
func (s Signers) Verify(ctx context.Context, stores []images.Store, img *images.Image) error {
	of, unsigned := img.Digests.Lock(), fmt.Errorf("image %s %w", img.Reference, ErrUnsigned)
	if of == "" {
		return unsigned
	}
	ok, err := s.signed(ctx, stores, img.Reference, of)
	switch {
	case errors.Is(err, images.ErrNotFound) && img.Digests.Index != "":
		return fmt.Errorf("%w; it is an index, so sign that, or name the manifest of the platform, %s", unsigned, img.Digests.Manifest)
	case errors.Is(err, images.ErrNotFound):
		return unsigned
	case err != nil:
		return fmt.Errorf("look for signatures of %s: %w", img.Reference, err)
	case !ok:
		return fmt.Errorf("image %s %w", img.Reference, ErrForeign)
	}
	return nil
}

// signed says whether one of the signers signed what has this digest. The error wraps [images.ErrNotFound] where no store has
// a signature of it.
func (s Signers) signed(ctx context.Context, stores []images.Store, image images.Reference, of digest.Digest) (bool, error) {
	for _, store := range stores {
		missing := true
		for _, look := range []func(context.Context, images.Store, images.Reference, digest.Digest) (bool, error){s.anySimple, s.anyBundle} {
			ok, err := look(ctx, store, image, of)
			if errors.Is(err, images.ErrNotFound) {
				continue
			}
			if ok || err != nil {
				return ok, err
			}
			missing = false
		}
		if !missing {
			return false, nil
		}
	}
	return false, images.ErrNotFound
}
