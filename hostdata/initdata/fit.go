// SPDX-License-Identifier: Apache-2.0

package initdata

import "fmt"

// MinDigest is the fewest bytes of a digest that can be bound: SHA-256.
const MinDigest = 32

// Fit returns digest as it stands in a field of size bytes (initdata specification, "Integrity Binding"): zero bytes added at the
// end of a shorter one, the end cut off a longer one. Sizes are 32 for SNP HOST_DATA and a SHA-256 PCR, 48 for TDX MRCONFIGID. A
// digest below MinDigest bytes is ErrShortDigest.
func Fit(digest []byte, size int) ([]byte, error) {
	if len(digest) < MinDigest {
		return nil, fmt.Errorf("fit digest of %d bytes: %w, at least %d", len(digest), ErrShortDigest, MinDigest)
	}
	field := make([]byte, size)
	copy(field, digest)
	return field, nil
}
