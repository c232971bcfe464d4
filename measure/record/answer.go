// SPDX-License-Identifier: Apache-2.0

package record

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"

	"portcullis/measure/eventlog"
)

// MaxNonce is the longest nonce that a statement answers, in bytes.
const MaxNonce = 32

// ErrAnswer is returned for an answer that its key did not sign, or that does not answer the nonce.
var ErrAnswer = errors.New("statement of the record is not good")

// Answer is what the guest says of its record to components of its own. With a register a quote of PCR vouches for Head. Without, the
// guest's key has signed a statement of it, and the report must have ReportData.
type Answer struct {
	State
	PCR        uint32       `json:"pcr,omitempty"`
	Key        eventlog.Hex `json:"key,omitempty"` // Ed25519
	ReportData eventlog.Hex `json:"reportData,omitempty"`
	Signature  eventlog.Hex `json:"signature,omitempty"`
}

// statement is what the key signs.
func (a *Answer) statement(nonce []byte) []byte {
	return fmt.Appendf(nil, "portcullis record 1\nnonce %x\nevents %d\nhead %s\ncomplete %t\n", nonce, a.Events, a.Head, a.Complete)
}

// Sign makes the answer one that answers a nonce.
func (a *Answer) Sign(key ed25519.PrivateKey, nonce []byte) {
	a.Key = eventlog.Hex(key.Public().(ed25519.PublicKey))
	a.ReportData = ReportData(a.Key, nonce)
	a.Signature = ed25519.Sign(key, a.statement(nonce))
}

// ReportData is what a report must have that vouches for a key: the nonce, padded with zeros to 32 bytes, and the SHA-256 of the key.
func ReportData(key, nonce []byte) []byte {
	data := make([]byte, MaxNonce, MaxNonce+sha256.Size)
	copy(data, nonce)
	sum := sha256.Sum256(key)
	return append(data, sum[:]...)
}

// Verify checks the signature. It does not say whose the key is: [ReportData] must be in a report.
func (a *Answer) Verify(nonce []byte) error {
	switch {
	case len(a.Key) != ed25519.PublicKeySize:
		return fmt.Errorf("%w: key of %d bytes", ErrAnswer, len(a.Key))
	case !ed25519.Verify(ed25519.PublicKey(a.Key), a.statement(nonce), a.Signature):
		return fmt.Errorf("%w: it is not signed by its key over this nonce", ErrAnswer)
	}
	return nil
}
