// SPDX-License-Identifier: Apache-2.0

// Package bundle signs statements about policies and checks who signed them, as Sigstore bundles (v0.3) that hold a DSSE
// envelope: cosign verify-blob-attestation reads them, and they are stored where other attestations are.
//
// The key is the user's own. There is no certificate, no entry in a transparency log and no time stamp in a bundle, so it
// says by which key a statement was signed, and not when.
package bundle

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"

	"portcullis/internal/strictjson"
	"portcullis/rules/statement"
)

// MaxBytes bounds a bundle that is read.
const MaxBytes = 8 << 20

// payloadType is that of in-toto statements in DSSE envelopes.
const payloadType = "application/vnd.in-toto+json"

var (
	// ErrForm says that a text is no bundle with a statement about policies.
	ErrForm = errors.New("is no bundle with a statement about policies")
	// ErrSignature says that a bundle is not signed by the key.
	ErrSignature = errors.New("is not signed by this key")
)

// Sign puts a statement, as [statement.Statement.Text] wrote it, into a bundle signed by a key: ECDSA on P-256 or P-384, RSA,
// or Ed25519. The signature is not the same twice but with Ed25519.
func Sign(ctx context.Context, text []byte, key crypto.Signer) ([]byte, error) {
	if _, err := statement.Parse(text); err != nil {
		return nil, fmt.Errorf("sign statement: %w", err)
	}
	pair, err := newKeypair(key)
	if err != nil {
		return nil, fmt.Errorf("sign statement: %w", err)
	}
	made, err := sign.Bundle(&sign.DSSEData{Data: text, PayloadType: payloadType}, pair, sign.BundleOptions{Context: ctx})
	if err != nil {
		return nil, fmt.Errorf("sign statement: %w", err)
	}
	out, err := protojson.Marshal(made)
	if err != nil {
		return nil, fmt.Errorf("sign statement: %w", err)
	}
	// protojson adds spaces by chance, so that nobody relies on them.
	var compact bytes.Buffer
	if err := json.Compact(&compact, out); err != nil {
		return nil, fmt.Errorf("sign statement: %w", err)
	}
	return append(compact.Bytes(), '\n'), nil
}

// Verify returns the statement of a bundle that was signed by key. The error wraps [ErrForm] or [ErrSignature].
func Verify(text []byte, key signature.Verifier) (*statement.Statement, error) {
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("verify bundle: %w: it has %d bytes, and at most %d are read", ErrForm, len(text), MaxBytes)
	}
	var b bundle.Bundle
	err := strictjson.Check(text)
	if err == nil {
		err = b.UnmarshalJSON(text)
	}
	if err != nil {
		return nil, fmt.Errorf("verify bundle: %w: %w", ErrForm, err)
	}
	envelope, err := b.Envelope()
	if err != nil {
		return nil, fmt.Errorf("verify bundle: %w: %w", ErrForm, err)
	}
	forEver := root.NewExpiringKey(key, time.Time{}, time.Time{})
	trusted := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) { return forEver, nil })
	verifier, err := verify.NewVerifier(trusted, verify.WithNoObserverTimestamps())
	if err != nil {
		return nil, fmt.Errorf("verify bundle: %w", err)
	}
	// Of which policy it speaks the caller asks the statement.
	if _, err := verifier.Verify(&b, verify.NewPolicy(verify.WithoutArtifactUnsafe(), verify.WithKey())); err != nil {
		return nil, fmt.Errorf("verify bundle: %w: %w", ErrSignature, err)
	}
	if envelope.RawEnvelope().PayloadType != payloadType {
		return nil, fmt.Errorf("verify bundle: %w: its payload is %.80q", ErrForm, envelope.RawEnvelope().PayloadType)
	}
	payload, err := envelope.RawEnvelope().DecodeB64Payload()
	if err != nil {
		return nil, fmt.Errorf("verify bundle: %w: %w", ErrForm, err)
	}
	s, err := statement.Parse(payload)
	if err != nil {
		return nil, fmt.Errorf("verify bundle: %w: %w", ErrForm, err)
	}
	return s, nil
}
