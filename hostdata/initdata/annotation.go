// SPDX-License-Identifier: Apache-2.0

package initdata

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"strings"

	"portcullis/internal/bounded"
)

// Annotations of a pod that the Kata runtime's shim hands to the guest.
const (
	// Annotation is base64(gzip(document)); the shim binds its digest and makes the disk of it.
	Annotation = "io.katacontainers.config.hypervisor.cc_init_data"
	// OlderAnnotation is the name that Kata up to 3.18 reads in its place.
	OlderAnnotation = "io.katacontainers.config.runtime.cc_init_data"
	// PolicyAnnotation is base64(policy); the shim sends it as SetPolicy.
	PolicyAnnotation = "io.katacontainers.config.agent.policy"
)

// maxCompressed is the most bytes that a document may have compressed.
const maxCompressed = 1 << 20

// Annotation returns the document as the value of the annotation Annotation.
// A document that does not compress to 1 MiB is ErrInvalid.
func (d *Document) Annotation() (string, error) {
	compressed, err := d.compress()
	if err != nil {
		return "", fmt.Errorf("encode initdata annotation: %w", err)
	}
	return base64.StdEncoding.EncodeToString(compressed), nil
}

// ParseAnnotation reads the value of the annotation Annotation. It accepts only what the shim accepts and of that one form: no
// line breaks in the base64, one gzip member, nothing behind it.
func ParseAnnotation(value string) (*Document, error) {
	compressed, err := decodeBase64(value, maxCompressed)
	if err != nil {
		return nil, fmt.Errorf("decode initdata annotation: %w", err)
	}
	doc, err := decompress(compressed)
	if err != nil {
		return nil, fmt.Errorf("decode initdata annotation: %w", err)
	}
	return doc, nil
}

// ParseOlder reads the value of the annotation OlderAnnotation, which is that of Annotation or base64(document): plain says which.
func ParseOlder(value string) (doc *Document, plain bool, err error) {
	raw, err := decodeBase64(value, MaxDocument)
	if err != nil {
		return nil, false, fmt.Errorf("decode initdata annotation: %w", err)
	}
	if bytes.HasPrefix(raw, []byte{0x1f, 0x8b}) {
		doc, err = ParseAnnotation(value)
		return doc, false, err
	}
	if doc, err = Parse(raw); err != nil {
		return nil, true, fmt.Errorf("decode initdata annotation: %w", err)
	}
	return doc, true, nil
}

// EncodePolicy returns policy as the value of the annotation PolicyAnnotation.
func EncodePolicy(policy []byte) string { return base64.StdEncoding.EncodeToString(policy) }

// ParsePolicy reads the value of the annotation PolicyAnnotation. The bytes are
// those that SetPolicy will carry: nothing is trimmed. At most MaxDocument bytes.
func ParsePolicy(value string) ([]byte, error) {
	policy, err := decodeBase64(value, MaxDocument)
	if err != nil {
		return nil, fmt.Errorf("decode policy annotation: %w", err)
	}
	return policy, nil
}

func decodeBase64(value string, max int) ([]byte, error) {
	if len(value) > base64.StdEncoding.EncodedLen(max) {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrInvalid, max)
	}
	// The decoder skips line breaks; with them one document has many values.
	if strings.ContainsAny(value, "\r\n") {
		return nil, fmt.Errorf("%w: line break in base64", ErrInvalid)
	}
	data, err := base64.StdEncoding.Strict().DecodeString(value)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if len(data) > max {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrInvalid, max)
	}
	return data, nil
}

// compress returns the document as one gzip member whose header has no time and
// no name, so that a document always gives the same bytes.
func (d *Document) compress() ([]byte, error) {
	var out bytes.Buffer
	zw, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := zw.Write(d.text); err != nil {
		return nil, err
	}
	if err := zw.Close(); err != nil {
		return nil, err
	}
	if out.Len() > maxCompressed {
		return nil, fmt.Errorf("%w: %d bytes compressed, at most %d", ErrInvalid, out.Len(), maxCompressed)
	}
	return out.Bytes(), nil
}

// decompress reads the document of one gzip member. A second member or trailing
// bytes, which readers treat differently, are refused.
func decompress(compressed []byte) (*Document, error) {
	in := bytes.NewReader(compressed)
	zr, err := gzip.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("%w: gzip: %w", ErrInvalid, err)
	}
	zr.Multistream(false)
	text, err := bounded.ReadAll(zr, MaxDocument)
	if err != nil {
		return nil, fmt.Errorf("%w: gzip: %w", ErrInvalid, err)
	}
	if in.Len() > 0 {
		return nil, fmt.Errorf("%w: %d bytes behind the gzip data", ErrInvalid, in.Len())
	}
	return Parse(text)
}
