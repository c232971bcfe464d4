// SPDX-License-Identifier: Apache-2.0

package binding

import (
	"fmt"

	"portcullis/measure"
	"portcullis/measure/eventlog"
)

// newEvent digests text with alg: sha256, sha384 or sha512.
func newEvent(kind, alg string, text []byte) (measure.Event, error) {
	digest, err := eventlog.BindingDigest(alg, text)
	if err != nil {
		return measure.Event{}, fmt.Errorf("digest algorithm: %w", err)
	}
	return measure.Event{Type: kind, Binding: kind, Alg: alg, Len: int64(len(text)), Digest: digest}, nil
}
