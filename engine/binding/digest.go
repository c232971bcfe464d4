// SPDX-License-Identifier: Apache-2.0

package binding

import (
	"crypto/sha256"
	"crypto/sha512"
	"fmt"

	"portcullis/measure"
)

// newEvent digests text with alg: sha256, sha384 or sha512.
func newEvent(kind, alg string, text []byte) (measure.Event, error) {
	e := measure.Event{Type: kind, Binding: kind, Alg: alg, Len: int64(len(text))}
	switch alg {
	case "sha256":
		d := sha256.Sum256(text)
		e.Digest = d[:]
	case "sha384":
		d := sha512.Sum384(text)
		e.Digest = d[:]
	case "sha512":
		d := sha512.Sum512(text)
		e.Digest = d[:]
	default:
		return e, fmt.Errorf("digest algorithm %q is not one of sha256, sha384, sha512", alg)
	}
	return e, nil
}
