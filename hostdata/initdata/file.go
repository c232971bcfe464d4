// SPDX-License-Identifier: Apache-2.0

package initdata

import (
	"bytes"
	"fmt"

	"portcullis/internal/bounded"
)

// ReadFile reads a document from the regular file at path, as [ParseFile] does. A symbolic link is ErrRead.
func ReadFile(path string) (*Document, error) {
	text, err := bounded.ReadRegular(path, MaxDocument)
	if err != nil {
		return nil, fmt.Errorf("read initdata: %w: %w", ErrRead, err)
	}
	return ParseFile(text)
}

// ParseFile reads what a file holds: a document as TOML or in the form of the annotation (peer pods), which holds no quote where TOML
// must have one. One line end behind the annotation form is allowed.
func ParseFile(text []byte) (*Document, error) {
	if bytes.ContainsAny(text, `"'`) {
		return Parse(text)
	}
	return ParseAnnotation(string(bytes.TrimSuffix(text, []byte("\n"))))
}
