// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// Keys are public keys, any of which may have signed.
type Keys []signature.Verifier

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

// check says whether sum is the signature of one of the keys over payload.
func (k Keys) check(payload, sum []byte) bool {
	for _, key := range k {
		if key.VerifySignature(bytes.NewReader(sum), bytes.NewReader(payload)) == nil {
			return true
		}
	}
	return false
}
