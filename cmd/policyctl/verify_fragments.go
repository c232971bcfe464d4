// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/spf13/cobra"

	"portcullis/measure/evidence"
)

// fragmentFlags are the fragments that may have updated the policy.
type fragmentFlags struct {
	files, digests []string
}

func (f *fragmentFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.files, "fragment", nil, "`file` with a fragment that may have updated the policy; may be repeated")
	cmd.Flags().StringArrayVar(&f.digests, "fragment-digest", nil, "the sha256 digest of such a fragment's document, `hexadecimal`, may be repeated")
}

// fragments reads them; b has the policy that they are held against, and maybe more of them.
func (f *verifyFlags) fragments(b boundText) (evidence.Fragments, error) {
	out := evidence.Fragments{Policy: b.policy, Envelopes: b.fragments}
	for _, path := range f.updates.files {
		envelope, err := readEnvelope(path)
		if err != nil {
			return out, fmt.Errorf("--fragment: %w", err)
		}
		out.Envelopes = append(out.Envelopes, envelope)
	}
	for _, text := range f.updates.digests {
		if digest, err := hex.DecodeString(text); err != nil || len(digest) != sha256.Size || hex.EncodeToString(digest) != text {
			return out, usageError(fmt.Errorf("--fragment-digest %.80q: want %d lower-case hexadecimal digits", text, 2*sha256.Size))
		}
		out.Digests = append(out.Digests, text)
	}
	return out, nil
}

// updated says what the pod's containers are after each fragment of a log.
func updated(pod *evidence.Pod, f evidence.Fragments, log []byte) error {
	texts, err := f.Policies(log)
	if err != nil {
		return nil // a log or fragments that cannot be read are refused by the checks
	}
	pod.Updated = map[string][]evidence.PodContainer{}
	for digest, text := range texts {
		after, err := podOf(text)
		if err != nil {
			return err
		}
		pod.Updated[digest] = after.Containers
	}
	return nil
}

// signed reads the record that the report has to vouch for, nil for none, and what may have updated the policy.
func (f *verifyFlags) signed(ctx context.Context, b boundText) (*evidence.SignedRecord, evidence.Fragments, error) {
	updates, err := f.fragments(b)
	if err != nil {
		return nil, updates, err
	}
	s, err := f.pod.signed(ctx)
	if err != nil || s == nil {
		return nil, updates, err
	}
	s.Fragments = updates
	return s, updates, updated(&s.Pod, updates, s.Log)
}

// readFragments reads what may have updated the policy, and what that makes of the pod's containers.
func (f *verifyFlags) readFragments(b boundText, e *evidence.TPM) (err error) {
	if e.Fragments, err = f.fragments(b); err != nil || e.Pod == nil {
		return err
	}
	return updated(e.Pod, e.Fragments, e.Log)
}
