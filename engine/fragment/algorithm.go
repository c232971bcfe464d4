// SPDX-License-Identifier: Apache-2.0

package fragment

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"slices"

	"github.com/veraison/go-cose"
)

// Algorithms are those that an envelope may be signed with, by the names of the COSE registry.
var Algorithms = []cose.Algorithm{cose.AlgorithmES256, cose.AlgorithmES384, cose.AlgorithmEdDSA, cose.AlgorithmPS256, cose.AlgorithmPS384}

// minRSA is the shortest RSA key, in bits.
const minRSA = 3072

func isAllowed(alg cose.Algorithm) bool { return slices.Contains(Algorithms, alg) }

// AlgorithmFor is the algorithm that a public key signs with.
func AlgorithmFor(key crypto.PublicKey) (cose.Algorithm, error) {
	for _, alg := range Algorithms {
		if fits(alg, key) == nil {
			return alg, nil
		}
	}
	return 0, fmt.Errorf("%w: a key of type %T, want P-256, P-384, Ed25519 or RSA of at least %d bits", ErrSignature, key, minRSA)
}

// fits holds a key against the algorithm of an envelope: one curve for each, as its strength is the issuer's choice and nobody
// else's.
func fits(alg cose.Algorithm, key crypto.PublicKey) error {
	ok := false
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		ok = alg == cose.AlgorithmES256 && k.Curve == elliptic.P256() || alg == cose.AlgorithmES384 && k.Curve == elliptic.P384()
	case ed25519.PublicKey:
		ok = alg == cose.AlgorithmEdDSA
	case *rsa.PublicKey:
		ok = (alg == cose.AlgorithmPS256 || alg == cose.AlgorithmPS384) && k.N.BitLen() >= minRSA
	}
	if !ok {
		return fmt.Errorf("%w: algorithm %v does not fit the issuer's key", ErrSignature, alg)
	}
	return nil
}
