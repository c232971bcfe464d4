// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"portcullis/engine/fragment"
	"portcullis/internal/atomicfile"
	"portcullis/internal/bounded"
)

const (
	fragmentPrefix = "fragment-"
	fragmentSuffix = ".cose"
)

// fragmentPath names a fragment's file after the digest of its envelope.
func (j *Journal) fragmentPath(digest string) string {
	return filepath.Join(j.dir, fragmentPrefix+digest+fragmentSuffix)
}

// Propose records an envelope that is about to be measured: a process after this one finds out whether it was.
func (j *Journal) Propose(envelope []byte) error {
	sum := sha256.Sum256(envelope)
	digest := hex.EncodeToString(sum[:])
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.dir == "" {
		if j.kept == nil {
			j.kept = map[string][]byte{}
		}
		j.kept[digest] = envelope
	} else if err := atomicfile.Write(j.fragmentPath(digest), envelope, 0o600); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return j.update(func(r *Record) error {
		r.Pending = digest
		return nil
	})
}

// Accept records the fragments that the policy decides with, the pending one among them or given up, and the highest SVNs. What
// no record speaks of any more is removed.
func (j *Journal) Accept(fragments []string, svns map[string]uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	err := j.update(func(r *Record) error {
		r.Fragments, r.SVNs, r.Pending = fragments, svns, ""
		return nil
	})
	if err != nil {
		return err
	}
	return j.removeFragments(fragments)
}

// removeFragments removes all but some. A file that stays is no harm: no record speaks of it.
func (j *Journal) removeFragments(keep []string) error {
	for digest := range j.kept {
		if !slices.Contains(keep, digest) {
			delete(j.kept, digest)
		}
	}
	if j.dir == "" {
		return nil
	}
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return fmt.Errorf("remove old fragments from journal: %w", err)
	}
	for _, e := range entries {
		digest, ok := strings.CutPrefix(strings.TrimSuffix(e.Name(), fragmentSuffix), fragmentPrefix)
		if !ok || slices.Contains(keep, digest) {
			continue
		}
		if err := os.Remove(filepath.Join(j.dir, e.Name())); err != nil {
			return fmt.Errorf("remove old fragment from journal: %w", err)
		}
	}
	return nil
}

// Fragment reads an envelope back by its digest.
func (j *Journal) Fragment(digest string) ([]byte, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	envelope, ok := j.kept[digest]
	if j.dir != "" {
		var err error
		if envelope, err = bounded.ReadRegular(j.fragmentPath(digest), fragment.MaxEnvelope); err != nil {
			return nil, fmt.Errorf("load journal: %w: %w", ErrCorrupt, err)
		}
	} else if !ok {
		return nil, fmt.Errorf("load journal: %w: fragment %.64q is not kept", ErrCorrupt, digest)
	}
	if sum := sha256.Sum256(envelope); hex.EncodeToString(sum[:]) != digest {
		return nil, fmt.Errorf("load journal: %w", errors.Join(ErrCorrupt, errors.New("fragment file is not the one of the record")))
	}
	return envelope, nil
}
