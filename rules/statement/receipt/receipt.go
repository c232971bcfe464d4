// SPDX-License-Identifier: Apache-2.0

// Package receipt checks that something is in a transparency log, without asking the log: a Merkle inclusion proof
// (RFC 6962, section 2.1.1) and a checkpoint that the log signed, in the form c2sp.org/tlog-proof.
//
// It shows that the log has vouched for the content at a place in a tree of its own. That others see the same tree is what
// witnesses and monitors of the log are for; cosignatures are passed over.
package receipt

import (
	"errors"
	"fmt"

	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/formats/proof"
	merkle "github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
)

// Bounds on a receipt: the longest proof is that in a tree of 2^63 leaves.
const (
	MaxBytes  = 64 << 10
	maxHashes = 63
)

var (
	// ErrKey says that a log's key is none.
	ErrKey = errors.New("is no key of a log, such as name+hash+base64")
	// ErrReceipt says that a text is no receipt in the form of c2sp.org/tlog-proof.
	ErrReceipt = errors.New("is no receipt of a log")
	// ErrCheckpoint says that the checkpoint of a receipt is not signed by the log.
	ErrCheckpoint = errors.New("has no checkpoint signed by the log")
	// ErrIncluded says that the content is not at the receipt's place in the log.
	ErrIncluded = errors.New("is the receipt of something else")
)

// Entry is a place in a log.
type Entry struct {
	Log   string // its name, the origin of its checkpoints
	Index uint64 // from 0 on
	Size  uint64 // leaves of the tree that the log has signed
}

// Verify checks the receipt of content, which is a leaf as it is, under the key of a log in the form of signed notes
// (c2sp.org/signed-note). The error wraps one of the sentinels of this package.
func Verify(receipt, content []byte, key string) (Entry, error) {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return Entry{}, fmt.Errorf("verify receipt: the key %w: %w", ErrKey, err)
	}
	if len(receipt) > MaxBytes {
		return Entry{}, fmt.Errorf("verify receipt: %w: it has %d bytes, and at most %d are read", ErrReceipt, len(receipt), MaxBytes)
	}
	var p proof.TLogProof
	if err := p.Unmarshal(receipt); err != nil {
		return Entry{}, fmt.Errorf("verify receipt: %w: %w", ErrReceipt, err)
	}
	if len(p.Hashes) > maxHashes {
		return Entry{}, fmt.Errorf("verify receipt: %w: it has %d hashes, and no tree needs more than %d", ErrReceipt, len(p.Hashes), maxHashes)
	}
	checkpoint, _, _, err := log.ParseCheckpoint(p.Checkpoint, verifier.Name(), verifier)
	if err != nil {
		return Entry{}, fmt.Errorf("verify receipt: it %w %s: %w", ErrCheckpoint, verifier.Name(), err)
	}
	hashes := make([][]byte, len(p.Hashes))
	for i := range p.Hashes {
		hashes[i] = p.Hashes[i][:]
	}
	leaf := rfc6962.DefaultHasher.HashLeaf(content)
	if err := merkle.VerifyInclusion(rfc6962.DefaultHasher, p.Index, checkpoint.Size, leaf, hashes, checkpoint.Hash); err != nil {
		return Entry{}, fmt.Errorf("verify receipt: it %w: %w", ErrIncluded, err)
	}
	return Entry{Log: checkpoint.Origin, Index: p.Index, Size: checkpoint.Size}, nil
}
