// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"
)

// attestationKey is the key that signed a quote.
type attestationKey struct {
	pub crypto.PublicKey // *rsa.PublicKey or *ecdsa.PublicKey
	// public is the TPM's description of the key, nil when only a PEM was given.
	public *tpm2.TPMTPublic
}

// parseAK reads a PEM public key, a TPM2B_PUBLIC (tpm2_createak -u) or a TPMT_PUBLIC.
func parseAK(data []byte) (*attestationKey, error) {
	if block, _ := pem.Decode(data); block != nil {
		pub, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("public key: %w", err)
		}
		return &attestationKey{pub: pub}, strong(pub)
	}
	if len(data) >= 2 && int(binary.BigEndian.Uint16(data)) == len(data)-2 {
		data = data[2:]
	}
	public, err := unmarshalAll[tpm2.TPMTPublic](data)
	if err != nil {
		return nil, fmt.Errorf("neither PEM, TPM2B_PUBLIC nor TPMT_PUBLIC: %w", err)
	}
	pub, err := tpm2.Pub(*public)
	if err != nil {
		return nil, err
	}
	return &attestationKey{pub: pub, public: public}, strong(pub)
}

// strong refuses keys that nobody should trust.
func strong(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return fmt.Errorf("RSA key of %d bits", k.N.BitLen())
		}
		return nil
	case *ecdsa.PublicKey:
		if k.Curve.Params().BitSize < 256 {
			return fmt.Errorf("curve of %d bits", k.Curve.Params().BitSize)
		}
		return nil
	}
	return fmt.Errorf("unsupported key %T", pub)
}

// restricted says why a key could sign a structure that only looks like a TPM's. It must be a restricted signing key that
// never was outside its TPM (TPM 2.0 Part 1, 25.2).
func restricted(public *tpm2.TPMTPublic) error {
	a := public.ObjectAttributes
	switch {
	case !a.Restricted || !a.SignEncrypt || a.Decrypt:
		return errors.New("not a restricted signing key: it signs forged quotes too")
	case !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin:
		return errors.New("not confined to the TPM that made it")
	}
	return nil
}

// unmarshaller is what tpm2.Unmarshal asks of a type's pointer.
type unmarshaller[T any] interface {
	*T
	tpm2.Unmarshallable
}

// unmarshalAll is tpm2.Unmarshal for input that ends with the structure, in canonical form.
func unmarshalAll[T tpm2.Marshallable, P unmarshaller[T]](data []byte) (*T, error) {
	v, err := tpm2.Unmarshal[T, P](data)
	if err != nil {
		return nil, err
	}
	if string(tpm2.Marshal(*v)) != string(data) {
		return nil, errors.New("trailing or non-canonical bytes")
	}
	return v, nil
}

// quoteHash returns a hash that a quote may be signed with; SHA-1 is none.
func quoteHash(alg tpm2.TPMAlgID) (crypto.Hash, error) {
	switch alg {
	case tpm2.TPMAlgSHA256, tpm2.TPMAlgSHA384, tpm2.TPMAlgSHA512:
		return alg.Hash()
	}
	return 0, fmt.Errorf("signed with hash %#04x, want SHA-256, SHA-384 or SHA-512", uint16(alg))
}

// verifyQuote checks a TPMT_SIGNATURE over message and returns its hash, which is also the hash of the quote's PCR digest.
func (ak *attestationKey) verifyQuote(message, signature []byte) (crypto.Hash, error) {
	sig, err := unmarshalAll[tpm2.TPMTSignature](signature)
	if err != nil {
		return 0, fmt.Errorf("TPMT_SIGNATURE: %w", err)
	}
	switch key := ak.pub.(type) {
	case *rsa.PublicKey:
		return verifyRSA(key, sig, message)
	case *ecdsa.PublicKey:
		s, err := sig.Signature.ECDSA()
		if err != nil || sig.SigAlg != tpm2.TPMAlgECDSA {
			return 0, fmt.Errorf("signature scheme %#04x does not fit an ECDSA key", uint16(sig.SigAlg))
		}
		h, err := quoteHash(s.Hash)
		if err != nil {
			return 0, err
		}
		r, ss := new(big.Int).SetBytes(s.SignatureR.Buffer), new(big.Int).SetBytes(s.SignatureS.Buffer)
		if !ecdsa.Verify(key, digest(h, message), r, ss) {
			return 0, errors.New("the signature is not by this key over this quote")
		}
		return h, nil
	}
	return 0, fmt.Errorf("unsupported key %T", ak.pub)
}

func verifyRSA(key *rsa.PublicKey, sig *tpm2.TPMTSignature, message []byte) (crypto.Hash, error) {
	var s *tpm2.TPMSSignatureRSA
	var err error
	switch sig.SigAlg {
	case tpm2.TPMAlgRSASSA:
		s, err = sig.Signature.RSASSA()
	case tpm2.TPMAlgRSAPSS:
		s, err = sig.Signature.RSAPSS()
	default:
		err = fmt.Errorf("signature scheme %#04x does not fit an RSA key", uint16(sig.SigAlg))
	}
	if err != nil {
		return 0, err
	}
	h, err := quoteHash(s.Hash)
	if err != nil {
		return 0, err
	}
	if sig.SigAlg == tpm2.TPMAlgRSAPSS {
		err = rsa.VerifyPSS(key, h, digest(h, message), s.Sig.Buffer, nil)
	} else {
		err = rsa.VerifyPKCS1v15(key, h, digest(h, message), s.Sig.Buffer)
	}
	if err != nil {
		return 0, fmt.Errorf("the signature is not by this key over this quote: %w", err)
	}
	return h, nil
}

func digest(h crypto.Hash, data []byte) []byte {
	w := h.New()
	w.Write(data)
	return w.Sum(nil)
}
