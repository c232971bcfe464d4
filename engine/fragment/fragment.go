// SPDX-License-Identifier: Apache-2.0

// Package fragment reads signed updates of a policy: parts of policy_data in a COSE_Sign1 envelope (RFC 9052), by an issuer that the
// measured policy names in policy_data.issuers.
//
// The measured policy is the ceiling. An [Issuer] says whose signature counts, for which feed, from which security version number
// (SVN) on, and which paths of policy_data its fragments may set within which bounds. [Merge] makes the text of the policy that
// decides: the measured one with what fragments set. Rules are never part of a fragment.
//
// No clock is believed in a guest. The validity of certificates is therefore not looked at here: an issuer is retired by a higher
// minimum_svn or another root in a new measured policy, and a verifier outside judges dates by a clock of its own.
package fragment

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/go-cose"
)

// Bounds.
const (
	MaxEnvelope = 256 << 10 // bytes of an envelope
	maxChain    = 5         // certificates in an x5chain
)

// ContentType is that of the payload, in the protected header 3.
const ContentType = "application/vnd.portcullis.fragment+json"

// Why an envelope is refused.
var (
	ErrTooLarge  = fmt.Errorf("fragment is longer than %d bytes", MaxEnvelope)
	ErrEnvelope  = errors.New("not a COSE_Sign1 envelope in its one form")
	ErrHeader    = errors.New("fragment has headers that are not understood")
	ErrDocument  = errors.New("fragment's document is not understood")
	ErrIssuer    = errors.New("no issuer of the policy vouches for this fragment")
	ErrSignature = errors.New("fragment's signature does not verify")
	ErrCeiling   = errors.New("fragment goes beyond what its issuer may set")
	ErrRollback  = errors.New("fragment's svn is too low")
	ErrPolicy    = errors.New("policy takes no fragments")
)

// prefix begins a fragment as text.
const prefix = "portcullis-fragment:"

// IsText says whether a text is meant to be a fragment and not a policy, by its first bytes: no policy begins so.
func IsText(text []byte) bool { return bytes.HasPrefix(text, []byte(prefix)) }

// Text is an envelope as SetPolicy and initdata take it, one line: a policy's field holds text and nothing else.
func Text(envelope []byte) []byte {
	return []byte(prefix + base64.StdEncoding.EncodeToString(envelope) + "\n")
}

// FromText is the envelope in a text, in the one form that [Text] gives; its last line feed may be missing.
func FromText(text []byte) ([]byte, error) {
	encoded, ok := bytes.CutPrefix(text, []byte(prefix))
	if !ok {
		return nil, fmt.Errorf("%w: it does not begin with %s", ErrEnvelope, prefix)
	}
	encoded = bytes.TrimSuffix(encoded, []byte("\n"))
	if base64.StdEncoding.DecodedLen(len(encoded)) > MaxEnvelope+2 {
		return nil, ErrTooLarge
	}
	if bytes.ContainsAny(encoded, "\r\n") { // which the decoder skips
		return nil, fmt.Errorf("%w: it is not one line of base64", ErrEnvelope)
	}
	envelope, err := base64.StdEncoding.Strict().DecodeString(string(encoded))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEnvelope, err)
	}
	return envelope, nil
}

// Signed is an envelope taken apart. Nothing in it is believed before [Signed.Issuer] has found who signed it.
type Signed struct {
	Document Document
	Payload  []byte // the document's exact bytes

	message cose.Sign1Message
	alg     cose.Algorithm
	chain   [][]byte // DER, leaf first; nil without x5chain
}

// Open takes an envelope apart. What is not understood is refused: other forms of the same content, tags, indefinite lengths, labels
// that are there twice, unprotected and critical headers, algorithms that are not in [Algorithms], envelopes in envelopes.
func Open(envelope []byte) (*Signed, error) {
	if len(envelope) > MaxEnvelope {
		return nil, ErrTooLarge
	}
	s := &Signed{}
	if err := s.message.UnmarshalCBOR(envelope); err != nil {
		return nil, fmt.Errorf("%w: %.200v", ErrEnvelope, err)
	}
	if err := s.headers(); err != nil {
		return nil, err
	}
	if err := s.canonical(envelope); err != nil {
		return nil, err
	}
	s.Payload = s.message.Payload
	if isEnvelope(s.Payload) {
		return nil, fmt.Errorf("%w: its payload is an envelope itself", ErrEnvelope)
	}
	document, err := parse(s.Payload)
	if err != nil {
		return nil, err
	}
	s.Document = document
	return s, nil
}

// isEnvelope says whether bytes begin as a COSE_Sign1 or COSE_Sign does, tagged or not.
func isEnvelope(b []byte) bool { return len(b) > 0 && (b[0]&0xe0 == 0xc0 || b[0] == 0x84) }

// emptyMap is a map of CBOR without members.
const emptyMap = 0xa0

// canonical holds the envelope to the one encoding of its four parts, so that no byte of it can be changed without being seen.
func (s *Signed) canonical(envelope []byte) error {
	var protected []byte // kept as it came by the message, its head too
	if err := cbor.Unmarshal(s.message.Headers.RawProtected, &protected); err != nil {
		return fmt.Errorf("%w: %.100v", ErrEnvelope, err)
	}
	head, err := cbor.Marshal(protected)
	if err != nil {
		return fmt.Errorf("%w: %.100v", ErrEnvelope, err)
	}
	m := s.message
	m.Headers.RawProtected, m.Headers.RawUnprotected = head, cbor.RawMessage{emptyMap}
	again, err := m.MarshalCBOR()
	if err != nil || !bytes.Equal(again, envelope) {
		return fmt.Errorf("%w: it is not in the shortest encoding", ErrEnvelope)
	}
	return nil
}

// headers reads what is signed of the headers, and refuses any that are not.
func (s *Signed) headers() error {
	h := s.message.Headers
	if len(h.Unprotected) > 0 {
		return fmt.Errorf("%w: unprotected ones, which nobody has signed", ErrHeader)
	}
	if _, ok := h.Protected[cose.HeaderLabelCritical]; ok {
		return fmt.Errorf("%w: critical ones", ErrHeader)
	}
	for label := range h.Protected {
		switch label {
		case cose.HeaderLabelAlgorithm, cose.HeaderLabelContentType, cose.HeaderLabelKeyID, cose.HeaderLabelX5Chain:
		default:
			return fmt.Errorf("%w: label %.40v", ErrHeader, label)
		}
	}
	if t, _ := h.Protected[cose.HeaderLabelContentType].(string); t != ContentType {
		return fmt.Errorf("%w: the content type is %.60q, want %s", ErrHeader, t, ContentType)
	}
	alg, err := h.Protected.Algorithm()
	if err != nil {
		return fmt.Errorf("%w: no algorithm: %.100v", ErrHeader, err)
	}
	if !isAllowed(alg) {
		return fmt.Errorf("%w: algorithm %.40v is not one of %v", ErrHeader, alg, Algorithms)
	}
	s.alg = alg
	s.chain, err = chainOf(h.Protected[cose.HeaderLabelX5Chain])
	return err
}

// chainOf reads an x5chain (RFC 9360): one certificate, or several with the leaf first.
func chainOf(header any) ([][]byte, error) {
	switch v := header.(type) {
	case nil:
		return nil, nil
	case []byte:
		return [][]byte{v}, nil
	case []any:
		if len(v) < 2 || len(v) > maxChain {
			return nil, fmt.Errorf("%w: an x5chain of %d certificates", ErrHeader, len(v))
		}
		chain := make([][]byte, len(v))
		for i, c := range v {
			der, ok := c.([]byte)
			if !ok {
				return nil, fmt.Errorf("%w: x5chain has what is no certificate", ErrHeader)
			}
			chain[i] = der
		}
		return chain, nil
	}
	return nil, fmt.Errorf("%w: x5chain has what is no certificate", ErrHeader)
}

// Digest names a fragment: the SHA-256 of its document in hexadecimal. Another signature over the same document is the same fragment.
func (s *Signed) Digest() string {
	sum := sha256.Sum256(s.Payload)
	return hex.EncodeToString(sum[:])
}

// Issuer finds which of a policy's issuers has signed the fragment, and checks that it may: feed, minimum_svn and signature. What the
// fragment sets is [Merge]'s to hold against the ceiling.
func (s *Signed) Issuer(issuers []Issuer) (*Issuer, error) {
	failed := fmt.Errorf("%w: none has feed %.60q", ErrIssuer, s.Document.Feed)
	for i := range issuers {
		issuer := &issuers[i]
		if issuer.Feed != s.Document.Feed {
			continue
		}
		if err := s.signedBy(issuer); err != nil {
			failed = err
			continue
		}
		if s.Document.SVN < issuer.MinimumSVN {
			return nil, fmt.Errorf("%w: %d, and the policy's minimum_svn for feed %s is %d", ErrRollback, s.Document.SVN, issuer.Feed, issuer.MinimumSVN)
		}
		return issuer, nil
	}
	return nil, failed
}

// signedBy verifies the signature by an issuer's key, or by the leaf of a chain to an issuer's root.
func (s *Signed) signedBy(issuer *Issuer) error {
	key, err := issuer.publicKey(s.chain)
	if err != nil {
		return err
	}
	if err := fits(s.alg, key); err != nil {
		return err
	}
	verifier, err := cose.NewVerifier(s.alg, key)
	if err != nil {
		return fmt.Errorf("%w: %.100v", ErrSignature, err)
	}
	if err := s.message.Verify(nil, verifier); err != nil {
		return fmt.Errorf("%w by %s", ErrSignature, issuer.ID())
	}
	return nil
}

// Algorithm is what it is signed with, by its name in the COSE registry.
func (s *Signed) Algorithm() string { return s.alg.String() }

// Subjects are those of the x5chain's certificates, leaf first, for display; "?" for one that cannot be read.
func (s *Signed) Subjects() []string {
	var out []string
	for _, der := range s.chain {
		subject := "?"
		if c, err := x509.ParseCertificate(der); err == nil {
			subject = c.Subject.String()
		}
		out = append(out, subject)
	}
	return out
}
