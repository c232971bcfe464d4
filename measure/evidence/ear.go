// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// earProfile names the form of the claims (draft-ietf-rats-ear).
const earProfile = "tag:github.com,2023:veraison/ear"

// earStatus is the status and the value of the trustworthiness claims that a verdict becomes (draft-ietf-rats-ar4si, 2.3): affirming,
// contraindicated, or no claim.
var earStatus = map[Verdict]struct {
	word  string
	claim int
}{Pass: {"affirming", 2}, Fail: {"contraindicated", 96}, Unknown: {"none", 0}}

// EAR is what a result becomes as an attestation result: a JWT of one submodule, "pod".
type EAR struct {
	Build  string    // version of the verifier
	Issued time.Time // "iat"
	Nonce  []byte    // that the evidence answers; nil: none
	Policy []byte    // digest of what was to be bound
	// Signer signs the token: an ECDSA key on P-256 (ES256), or an Ed25519 key (EdDSA). Nil: "alg" is "none".
	Signer crypto.Signer
}

// ErrSigner is returned for a key that no token is signed by.
var ErrSigner = errors.New("a token is signed by an ECDSA key on P-256 or an Ed25519 key")

// EAR returns the result as a token.
func (r Result) EAR(e EAR) (string, error) {
	status := earStatus[r.Verdict]
	vector := map[string]int{"configuration": status.claim, "executables": status.claim}
	if slices.Contains(r.NotChecked, bootCheck) {
		vector["executables"] = earStatus[Unknown].claim
	}
	submod := map[string]any{
		"ear.status":                 status.word,
		"ear.trustworthiness-vector": vector,
		"ear.appraisal-policy-id":    fmt.Sprintf("portcullis:%x", e.Policy),
		"ear.portcullis.checks":      r.Checks,
		"ear.portcullis.not-checked": r.NotChecked,
	}
	if r.Pod != nil {
		submod["ear.portcullis.pod"] = r.Pod
	}
	claims := map[string]any{
		"eat_profile":     earProfile,
		"iat":             e.Issued.Unix(),
		"ear.verifier-id": map[string]string{"developer": "Portcullis", "build": e.Build},
		"submods":         map[string]any{"pod": submod},
	}
	if len(e.Nonce) > 0 {
		claims["eat_nonce"] = base64.RawURLEncoding.EncodeToString(e.Nonce)
	}
	return token(claims, e.Signer)
}

// token encodes and signs a JWT (RFC 7515, RFC 7518, RFC 8037).
func token(claims map[string]any, signer crypto.Signer) (string, error) {
	alg, sign, err := signature(signer)
	if err != nil {
		return "", err
	}
	head, err := part(map[string]string{"alg": alg, "typ": "JWT"})
	if err != nil {
		return "", err
	}
	body, err := part(claims)
	if err != nil {
		return "", err
	}
	signed, err := sign([]byte(head + "." + body))
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return head + "." + body + "." + base64.RawURLEncoding.EncodeToString(signed), nil
}

func part(v any) (string, error) {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return base64.RawURLEncoding.EncodeToString(bytes.TrimSuffix(text.Bytes(), []byte("\n"))), err
}

// signature returns the algorithm of a key and how it signs.
func signature(signer crypto.Signer) (string, func([]byte) ([]byte, error), error) {
	switch key := signer.(type) {
	case nil:
		return "none", func([]byte) ([]byte, error) { return nil, nil }, nil
	case ed25519.PrivateKey:
		return "EdDSA", func(text []byte) ([]byte, error) { return ed25519.Sign(key, text), nil }, nil
	case *ecdsa.PrivateKey:
		if key.Curve == elliptic.P256() {
			return "ES256", func(text []byte) ([]byte, error) { return es256(key, text) }, nil
		}
	}
	return "", nil, ErrSigner
}

// es256 signs with the two numbers side by side, 32 bytes each.
func es256(key *ecdsa.PrivateKey, text []byte) ([]byte, error) {
	sum := sha256.Sum256(text)
	der, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		return nil, err
	}
	var numbers struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &numbers); err != nil {
		return nil, err
	}
	out := make([]byte, 64)
	numbers.R.FillBytes(out[:32])
	numbers.S.FillBytes(out[32:])
	return out, nil
}
