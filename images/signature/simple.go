// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"context"
	"encoding/base64"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"portcullis/images"
	"portcullis/internal/strictjson"
)

// The names of cosign's first form.
const (
	payloadType           = "application/vnd.dev.cosign.simplesigning.v1+json"
	payloadKind           = "cosign container image signature" // critical.type
	signatureAnnotation   = "dev.cosignproject.cosign/signature"
	certificateAnnotation = "dev.sigstore.cosign/certificate"      // PEM
	entryAnnotation       = "dev.sigstore.cosign/bundle"           // of the transparency log, JSON
	timeAnnotation        = "dev.sigstore.cosign/rfc3161timestamp" // JSON
)

// simpleSignature is a signature over a payload, and what says whose it is.
type simpleSignature struct {
	payload     []byte
	sum         []byte
	annotations map[string]string // of the layer
}

// anySimple says whether one of the signers signed in the first form. The error wraps [images.ErrNotFound] where there is no
// signature of that form.
func (s Signers) anySimple(ctx context.Context, store images.Store, image images.Reference, want digest.Digest) (bool, error) {
	ref := images.Reference{Registry: image.Registry, Repository: image.Repository, Tag: "sha256-" + want.Encoded() + ".sig"}
	target, err := store.Resolve(ctx, ref)
	if err != nil {
		return false, err
	}
	layers, err := layersOf(ctx, store, ref, target.Descriptor)
	if err != nil {
		return false, err
	}
	for _, layer := range layers {
		encoded := layer.Annotations[signatureAnnotation]
		if layer.MediaType != payloadType || encoded == "" {
			continue
		}
		payload, err := images.Content(ctx, store, ref, layer, maxPayload)
		if err != nil {
			return false, err
		}
		sum, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || !names(payload, want) {
			continue // another's affair: this one counts for nobody
		}
		for _, signer := range s {
			if signer.simple(simpleSignature{payload, sum, layer.Annotations}) {
				return true, nil
			}
		}
	}
	return false, nil
}

// layersOf are the layers of a manifest of signatures.
func layersOf(ctx context.Context, store images.Store, ref images.Reference, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	raw, err := images.Content(ctx, store, ref, d, maxManifest)
	if err != nil {
		return nil, err
	}
	var manifest ocispec.Manifest
	if err := strictjson.Unmarshal(raw, &manifest); err != nil {
		return nil, fmt.Errorf("manifest of signatures %s: %w", d.Digest, err)
	}
	if len(manifest.Layers) > maxSignatures {
		return nil, fmt.Errorf("manifest of signatures %s: %w", d.Digest, &images.LimitError{What: "number of signatures", Limit: maxSignatures})
	}
	return manifest.Layers, nil
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
	if err := strictjson.Unmarshal(payload, &p); err != nil {
		return false
	}
	return p.Critical.Type == payloadKind && p.Critical.Image.Digest == want.String()
}
