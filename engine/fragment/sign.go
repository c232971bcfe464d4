// SPDX-License-Identifier: Apache-2.0

package fragment

import (
	"crypto"
	"crypto/rand"
	"fmt"

	"github.com/veraison/go-cose"
)

// Sign makes an envelope over a document with a private key; chain is the DER of its certificates, leaf first and root last, or
// nil for an issuer who is named by key. It is what [Open] takes.
func Sign(d Document, key crypto.Signer, chain [][]byte) ([]byte, error) {
	payload, err := d.JSON()
	if err != nil {
		return nil, err
	}
	alg, err := AlgorithmFor(key.Public())
	if err != nil {
		return nil, err
	}
	signer, err := cose.NewSigner(alg, key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	m := cose.NewSign1Message()
	m.Payload = payload
	m.Headers.Protected.SetAlgorithm(alg)
	m.Headers.Protected[cose.HeaderLabelContentType] = ContentType
	switch {
	case len(chain) == 1:
		m.Headers.Protected[cose.HeaderLabelX5Chain] = chain[0]
	case len(chain) > 1:
		certs := make([]any, len(chain))
		for i, der := range chain {
			certs[i] = der
		}
		m.Headers.Protected[cose.HeaderLabelX5Chain] = certs
	}
	if err := m.Sign(rand.Reader, nil, signer); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	envelope, err := m.MarshalCBOR()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEnvelope, err)
	}
	if _, err := Open(envelope); err != nil { // what we would refuse is not signed
		return nil, err
	}
	return envelope, nil
}
