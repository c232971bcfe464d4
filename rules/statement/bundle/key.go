// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// ParseKey reads a private key in PEM: PKCS #8, SEC 1, PKCS #1, or one of cosign's, which a password protects. The password is
// nil for a key without one.
func ParseKey(pem, password []byte) (crypto.Signer, error) {
	ask := func(bool) ([]byte, error) {
		if password == nil {
			return nil, errors.New("it is encrypted, and no password was given")
		}
		return password, nil
	}
	key, err := cryptoutils.UnmarshalPEMToPrivateKey(pem, ask)
	if err != nil {
		return nil, fmt.Errorf("is no private key in PEM: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("is a key of type %T, which does not sign", key)
	}
	return signer, nil
}

// keypair is a user's key as sigstore-go wants it.
type keypair struct {
	crypto.Signer
	details signature.AlgorithmDetails
	name    string // of the kind of key
	der     []byte // of the public half
}

func newKeypair(key crypto.Signer) (*keypair, error) {
	k := &keypair{Signer: key}
	switch key.Public().(type) {
	case *ecdsa.PublicKey:
		k.name = "ECDSA"
	case *rsa.PublicKey:
		k.name = "RSA"
	case ed25519.PublicKey:
		k.name = "ED25519"
	default:
		return nil, fmt.Errorf("keys of type %T are not supported", key.Public())
	}
	details, err := signature.GetDefaultAlgorithmDetails(key.Public())
	if err != nil {
		return nil, err
	}
	k.details = details
	k.der, err = x509.MarshalPKIXPublicKey(key.Public())
	return k, err
}

func (k *keypair) GetHashAlgorithm() protocommon.HashAlgorithm { return k.details.GetProtoHashType() }

func (k *keypair) GetSigningAlgorithm() protocommon.PublicKeyDetails {
	return k.details.GetSignatureAlgorithm()
}

// GetHint is the SHA-256 of the public key, by which cosign tells keys apart.
func (k *keypair) GetHint() []byte {
	sum := sha256.Sum256(k.der)
	return []byte(base64.StdEncoding.EncodeToString(sum[:]))
}

func (k *keypair) GetKeyAlgorithm() string { return k.name }

func (k *keypair) GetPublicKey() crypto.PublicKey { return k.Public() }

func (k *keypair) GetPublicKeyPem() (string, error) {
	pem, err := cryptoutils.MarshalPublicKeyToPEM(k.Public())
	return string(pem), err
}

// SignData returns the signature and what was signed: a digest, but with Ed25519.
func (k *keypair) SignData(_ context.Context, data []byte) (sum, signed []byte, err error) {
	signed = data
	hash := k.details.GetHashType()
	if hash != 0 {
		h := hash.New()
		h.Write(data)
		signed = h.Sum(nil)
	}
	sum, err = k.Sign(rand.Reader, signed, hash)
	return sum, signed, err
}
