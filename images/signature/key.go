// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// ParseKey reads one public key in PEM (PKIX): ECDSA, RSA or Ed25519, as cosign public-key prints it. The hash is SHA-256,
// cosign's own.
func ParseKey(pem []byte) (signature.Verifier, error) {
	key, err := cryptoutils.UnmarshalPEMToPublicKey(pem)
	if err != nil {
		if bytes.Contains(pem, []byte("PRIVATE KEY")) {
			return nil, errors.New("is a private key; give the public one (cosign public-key --key FILE)")
		}
		return nil, fmt.Errorf("is no public key in PEM: %w", err)
	}
	return signature.LoadVerifier(key, crypto.SHA256)
}

// keySigner is who holds the private half of a key.
type keySigner struct {
	key     signature.Verifier
	bundles *verify.Verifier
}

// NewKey is the signer whose public key is key. A key needs no log and no time: it holds for ever.
func NewKey(key signature.Verifier) (Signer, error) {
	forEver := root.NewExpiringKey(key, time.Time{}, time.Time{})
	trusted := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) { return forEver, nil })
	verifier, err := verify.NewVerifier(trusted, verify.WithNoObserverTimestamps())
	if err != nil {
		return nil, fmt.Errorf("verifier of a key: %w", err)
	}
	return &keySigner{key, verifier}, nil
}

func (k *keySigner) simple(s simpleSignature) bool {
	return k.key.VerifySignature(bytes.NewReader(s.sum), bytes.NewReader(s.payload)) == nil
}

func (k *keySigner) bundled(b *bundle.Bundle, image digest.Digest) bool {
	return signs(k.bundles, b, image, verify.WithKey())
}
