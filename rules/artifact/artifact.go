// SPDX-License-Identifier: Apache-2.0

// Package artifact stores policies in registries, as OCI artifacts (image specification 1.1, artifactType): a manifest
// with the policy as a layer, and the signed statement of what it was made from as another. Other tools read them: oras
// pull, crane, cosign.
package artifact

import (
	"context"
	"errors"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"

	"portcullis/internal/strictjson"
)

// The types that name the format.
const (
	Type       = "application/vnd.portcullis.policy.v1"          // of the artifact
	PolicyType = "application/vnd.portcullis.policy.v1+rego"     // of the layer with the policy
	BundleType = "application/vnd.dev.sigstore.bundle.v0.3+json" // of the layer with the bundle
)

// Bounds on what a registry answers, in bytes.
const (
	maxManifest = 1 << 20
	maxLayer    = 16 << 20
)

var (
	// ErrNotFound says that a registry has nothing of the name.
	ErrNotFound = errors.New("is not in the registry")
	// ErrForm says that what has the name is no policy.
	ErrForm = errors.New("is no policy artifact")
)

// Artifact is a policy with what goes with it.
type Artifact struct {
	Policy []byte // Rego, as a guest takes it
	Bundle []byte // a Sigstore bundle; nil for none
}

// Push stores an artifact under a tag and returns its manifest. The same content has the same digest.
func Push(ctx context.Context, to oras.Target, tag string, a Artifact) (ocispec.Descriptor, error) {
	var layers []ocispec.Descriptor
	for _, part := range []struct {
		mediaType, title string
		text             []byte
	}{{PolicyType, "policy.rego", a.Policy}, {BundleType, "policy.sigstore.json", a.Bundle}} {
		if part.text == nil {
			continue
		}
		if len(part.text) > maxLayer {
			return ocispec.Descriptor{}, fmt.Errorf("push policy: %s has %d bytes, and at most %d can be pulled again", part.title, len(part.text), maxLayer)
		}
		layer, err := pushBytes(ctx, to, part.mediaType, part.text)
		if err != nil {
			return layer, fmt.Errorf("push policy: %w", err)
		}
		layer.Annotations = map[string]string{ocispec.AnnotationTitle: part.title}
		layers = append(layers, layer)
	}
	manifest, err := oras.PackManifest(ctx, to, oras.PackManifestVersion1_1, Type, oras.PackManifestOptions{
		Layers: layers,
		// A time of its own would give the same policy another digest each time.
		ManifestAnnotations: map[string]string{ocispec.AnnotationCreated: "1970-01-01T00:00:00Z"},
	})
	if err != nil {
		return manifest, fmt.Errorf("push policy: %w", err)
	}
	if err := to.Tag(ctx, manifest, tag); err != nil {
		return manifest, fmt.Errorf("push policy: tag %s: %w", tag, err)
	}
	return manifest, nil
}

// pushBytes stores a blob, unless it is there.
func pushBytes(ctx context.Context, to content.Pusher, mediaType string, text []byte) (ocispec.Descriptor, error) {
	d, err := oras.PushBytes(ctx, to, mediaType, text)
	if errors.Is(err, errdef.ErrAlreadyExists) {
		return content.NewDescriptorFromBytes(mediaType, text), nil
	}
	return d, err
}

// Pull reads the artifact that a tag or digest names, and its manifest. All that is returned has the digest that the manifest
// gives it. The error wraps [ErrNotFound], [ErrForm], or is a failure to look.
func Pull(ctx context.Context, from oras.ReadOnlyTarget, name string) (Artifact, ocispec.Descriptor, error) {
	var a Artifact
	d, raw, err := oras.FetchBytes(ctx, from, name, oras.FetchBytesOptions{MaxBytes: maxManifest})
	if errors.Is(err, errdef.ErrNotFound) {
		return a, d, fmt.Errorf("pull policy: %s %w", name, ErrNotFound)
	}
	if err != nil {
		return a, d, fmt.Errorf("pull policy: %w", err)
	}
	var manifest ocispec.Manifest
	if err := strictjson.Unmarshal(raw, &manifest); err != nil {
		return a, d, fmt.Errorf("pull policy: %s %w: %w", name, ErrForm, err)
	}
	if manifest.ArtifactType != Type {
		return a, d, fmt.Errorf("pull policy: %s %w: its type is %.80q, want %q", name, ErrForm, manifest.ArtifactType, Type)
	}
	for _, layer := range manifest.Layers {
		var into *[]byte
		switch layer.MediaType {
		case PolicyType:
			into = &a.Policy
		case BundleType:
			into = &a.Bundle
		default:
			continue
		}
		if *into != nil {
			return a, d, fmt.Errorf("pull policy: %s %w: it has two layers of the type %q", name, ErrForm, layer.MediaType)
		}
		if layer.Size > maxLayer {
			return a, d, fmt.Errorf("pull policy: %s %w: a layer has %d bytes, and at most %d are read", name, ErrForm, layer.Size, maxLayer)
		}
		if *into, err = content.FetchAll(ctx, from, layer); err != nil {
			return a, d, fmt.Errorf("pull policy: %w", err)
		}
	}
	if a.Policy == nil {
		return a, d, fmt.Errorf("pull policy: %s %w: it has no policy", name, ErrForm)
	}
	return a, d, nil
}
