// SPDX-License-Identifier: Apache-2.0

package record

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
)

// ArgsDigest is what a record says of an exec's arguments: the SHA-256 of each of them in turn with a zero byte behind it, in
// lower-case hexadecimal. printf '%s\0' ARG... | sha256sum gives the same.
func ArgsDigest(args []string) string {
	h := sha256.New()
	for _, a := range args {
		h.Write([]byte(a))
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil))
}

// LayersDigest is what a record says of an image whose layers are bound by dm-verity: "verity:" and the SHA-256 of the sorted root
// hashes, each in lower-case hexadecimal digits with a line feed behind it. In which order they are laid over one another is the
// policy's to decide.
func LayersDigest(roots []string) string {
	sum := sha256.Sum256([]byte(strings.Join(slices.Sorted(slices.Values(roots)), "\n") + "\n"))
	return "verity:" + hex.EncodeToString(sum[:])
}

var referenceDigest = regexp.MustCompile(`@(sha(?:256|384|512):[0-9a-f]{64,128})$`)

// ReferenceDigest is the digest in an image's reference, "" for a tag.
func ReferenceDigest(reference string) string {
	if m := referenceDigest.FindStringSubmatch(reference); m != nil {
		return m[1]
	}
	return ""
}
