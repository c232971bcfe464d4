// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"portcullis/images"
	"portcullis/internal/strictjson"
)

// The names of cosign's second form: a bundle with an in-toto statement, whose subject is the image. Other statements, such as
// how it was built, are stored likewise, and are no signatures.
const (
	bundleType    = "application/vnd.dev.sigstore.bundle" // begins the media type; versions follow
	signPredicate = "https://sigstore.dev/cosign/sign/v1"
)

// anyBundle says whether one of the signers signed in the second form. The error wraps [images.ErrNotFound] where there is no
// bundle beside the image.
func (s Signers) anyBundle(ctx context.Context, store images.Store, image images.Reference, want digest.Digest) (bool, error) {
	found, err := referrers(ctx, store, image, want)
	if err != nil {
		return false, err
	}
	found = bundles(found)
	switch {
	case len(found) == 0:
		return false, images.ErrNotFound
	case len(found) > maxSignatures:
		return false, &images.LimitError{What: "number of bundles", Limit: maxSignatures}
	}
	for _, d := range found {
		ok, err := s.artifact(ctx, store, image, d, want)
		if ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// referrers are what a store says refers to an image. One that does not know, as a layout, may have the index that clients
// keep for registries of old: its tag is the digest.
func referrers(ctx context.Context, store images.Store, image images.Reference, of digest.Digest) ([]ocispec.Descriptor, error) {
	if s, ok := store.(images.ReferrerStore); ok {
		return s.Referrers(ctx, image, of)
	}
	ref := images.Reference{Registry: image.Registry, Repository: image.Repository, Tag: "sha256-" + of.Encoded()}
	target, err := store.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	raw, err := images.Content(ctx, store, ref, target.Descriptor, maxManifest)
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := strictjson.Unmarshal(raw, &index); err != nil {
		return nil, fmt.Errorf("index of referrers %s: %w", ref, err)
	}
	return index.Manifests, nil
}

// bundles are those of the referrers that say they hold a bundle.
func bundles(all []ocispec.Descriptor) []ocispec.Descriptor {
	var out []ocispec.Descriptor
	for _, d := range all {
		if strings.HasPrefix(d.ArtifactType, bundleType) {
			out = append(out, d)
		}
	}
	return out
}

// artifact says whether the bundle in an artifact is a signature by one of the signers. It has one, as cosign makes it: more of
// them are not looked at, or a registry could have any number fetched.
func (s Signers) artifact(ctx context.Context, store images.Store, image images.Reference, d ocispec.Descriptor, want digest.Digest) (bool, error) {
	layers, err := layersOf(ctx, store, image, d)
	if err != nil {
		return false, err
	}
	at := slices.IndexFunc(layers, func(l ocispec.Descriptor) bool { return strings.HasPrefix(l.MediaType, bundleType) })
	if at < 0 {
		return false, nil
	}
	raw, err := images.Content(ctx, store, image, layers[at], maxBundle)
	if err != nil {
		return false, err
	}
	var b bundle.Bundle
	if strictjson.Check(raw) != nil || b.UnmarshalJSON(raw) != nil {
		return false, nil // of a release to come, or nobody's
	}
	return slices.ContainsFunc(s, func(signer Signer) bool { return signer.bundled(&b, want) }), nil
}

// signs says whether a bundle is cosign's signature on an image, by who.
func signs(v *verify.Verifier, b *bundle.Bundle, image digest.Digest, who verify.PolicyOption) bool {
	raw, err := hex.DecodeString(image.Encoded())
	if err != nil {
		return false
	}
	result, err := v.Verify(b, verify.NewPolicy(verify.WithArtifactDigest(image.Algorithm().String(), raw), who))
	return err == nil && result.Statement.GetPredicateType() == signPredicate
}
