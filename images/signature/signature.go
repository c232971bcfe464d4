// SPDX-License-Identifier: Apache-2.0

// Package signature checks who signed an image, by the signatures that cosign keeps beside it in a registry or layout.
//
// A signature is a layer of the manifest tagged sha256-<digest>.sig in the image's own repository. The layer is the signed
// payload, of the format "simple signing", which names the digest; its annotation holds the signature in base64 (cosign,
// specs/SIGNATURE_SPEC.md). What counts is the digest: an image may be signed under another name, as mirrors have it.
package signature

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"portcullis/images"
)

const (
	payloadType         = "application/vnd.dev.cosign.simplesigning.v1+json"
	payloadKind         = "cosign container image signature" // critical.type
	signatureAnnotation = "dev.cosignproject.cosign/signature"
)

// Bounds on what a registry answers. Each signature of an image is a layer.
const (
	maxManifest   = 4 << 20
	maxPayload    = 64 << 10
	maxSignatures = 128
)

// ErrUnsigned says that no signature of an image is where the image is looked for. It wraps [images.ErrUntrusted].
var ErrUnsigned = fmt.Errorf("%w: no signature of cosign's is beside it", images.ErrUntrusted)

// ErrForeign says that an image has signatures, and none of them is of a key that was given. It wraps [images.ErrUntrusted].
var ErrForeign = fmt.Errorf("%w: no signature beside it is by a key that was given", images.ErrUntrusted)

// Verify looks for a signature by one of the keys on the image's index or manifest, in the first of stores that has
// signatures for it. The error wraps [ErrUnsigned], [ErrForeign], or is a failure to look.
func (k Keys) Verify(ctx context.Context, stores []images.Store, img *images.Image) error {
	missing := true
	for _, signed := range []digest.Digest{img.Digests.Index, img.Digests.Manifest} {
		if signed == "" {
			continue
		}
		found, err := find(ctx, stores, img.Reference, signed)
		if errors.Is(err, images.ErrNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look for signatures of %s: %w", img.Reference, err)
		}
		missing = false
		ok, err := k.signed(ctx, found, signed)
		if err != nil {
			return fmt.Errorf("read signatures of %s: %w", img.Reference, err)
		}
		if ok {
			return nil
		}
	}
	if missing {
		return fmt.Errorf("image %s %w", img.Reference, ErrUnsigned)
	}
	return fmt.Errorf("image %s %w", img.Reference, ErrForeign)
}

// signatures are the layers of one manifest of signatures, and where they are.
type signatures struct {
	store  images.Store
	ref    images.Reference
	layers []ocispec.Descriptor
}

// find reads the manifest of the signatures on one digest.
func find(ctx context.Context, stores []images.Store, of images.Reference, signed digest.Digest) (*signatures, error) {
	ref := images.Reference{Registry: of.Registry, Repository: of.Repository, Tag: "sha256-" + signed.Encoded() + ".sig"}
	for _, store := range stores {
		target, err := store.Resolve(ctx, ref)
		if errors.Is(err, images.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		raw, err := images.Content(ctx, store, ref, target.Descriptor, maxManifest)
		if err != nil {
			return nil, err
		}
		var manifest ocispec.Manifest
		if err := json.Unmarshal(raw, &manifest); err != nil {
			return nil, fmt.Errorf("manifest %s: %w", ref, err)
		}
		if len(manifest.Layers) > maxSignatures {
			return nil, fmt.Errorf("manifest %s: %w", ref, &images.LimitError{What: "number of signatures", Limit: maxSignatures})
		}
		return &signatures{store: store, ref: ref, layers: manifest.Layers}, nil
	}
	return nil, images.ErrNotFound
}

// signed says whether one of the signatures is by one of the keys, over a payload that names the digest.
func (k Keys) signed(ctx context.Context, s *signatures, want digest.Digest) (bool, error) {
	for _, layer := range s.layers {
		encoded := layer.Annotations[signatureAnnotation]
		if layer.MediaType != payloadType || encoded == "" {
			continue
		}
		payload, err := images.Content(ctx, s.store, s.ref, layer, maxPayload)
		if err != nil {
			return false, err
		}
		sum, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			continue // another's affair: this one counts for nobody
		}
		if k.check(payload, sum) && names(payload, want) {
			return true, nil
		}
	}
	return false, nil
}

// names says whether a payload is cosign's and says of want that it is signed.
func names(payload []byte, want digest.Digest) bool {
	var p struct {
		Critical struct {
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(payload, &p); err != nil {
		return false
	}
	return p.Critical.Type == payloadKind && p.Critical.Image.Digest == want.String()
}
