// SPDX-License-Identifier: Apache-2.0

// Package initdata reads and writes initdata: the one document that is handed to a guest at launch and whose digest the launcher
// binds to the hardware. It carries the policy and the configuration of the guest components.
//
// The document is TOML (Confidential Containers initdata specification, version 0.1.0): version, algorithm, and a table data of
// strings. Its digest is over its exact bytes. It travels as base64 of gzip in a pod annotation, and reaches the guest as a small
// read-only disk.
//
// Everything read here was written by the host. Whatever can be read in two ways is refused, and nothing is read without a bound.
package initdata

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// Version is the only version of the document that there is.
const Version = "0.1.0"

// MaxDocument is the most bytes a document may have.
const MaxDocument = 4 << 20

// Keys of the data table that have a meaning. Others are kept and never used, least of all as a path.
const (
	PolicyKey = "policy.rego" // the agent policy
	AAKey     = "aa.toml"     // configuration of the attestation agent
	CDHKey    = "cdh.toml"    // configuration of the confidential data hub
	// FragmentsKey are signed fragments that the policy begins with, one a line
	FragmentsKey = "fragments"
)

// Algorithm is the hash that a document's digest is made with.
type Algorithm string

// The algorithms.
const (
	SHA256 Algorithm = "sha256" // 32 bytes; the only one that fits a vTPM
	SHA384 Algorithm = "sha384" // 48 bytes
	SHA512 Algorithm = "sha512" // 64 bytes
)

// new returns the hash, nil for an unknown algorithm.
func (a Algorithm) new() hash.Hash {
	switch a {
	case SHA256:
		return sha256.New()
	case SHA384:
		return sha512.New384()
	case SHA512:
		return sha512.New()
	}
	return nil
}

// Document is a valid initdata document together with its exact bytes. It cannot be changed.
type Document struct {
	text      []byte
	algorithm Algorithm
	data      map[string]string
}

// Parse reads a document. The top level must have exactly the keys version, algorithm and data, in that case; every value in data
// must be a string. A byte order mark, a carriage return outside an escape, invalid UTF-8 and anything that is not TOML are
// refused: all errors are ErrInvalid.
func Parse(text []byte) (*Document, error) {
	if err := checkText(text); err != nil {
		return nil, fmt.Errorf("parse initdata: %w: %w", ErrInvalid, err)
	}
	// Decoding into a struct would match keys whatever their case.
	var top map[string]any
	if err := toml.Unmarshal(text, &top); err != nil {
		return nil, fmt.Errorf("parse initdata: %w: %.200q", ErrInvalid, err.Error())
	}
	doc, err := fromTable(top)
	if err != nil {
		return nil, fmt.Errorf("parse initdata: %w: %w", ErrInvalid, err)
	}
	doc.text = bytes.Clone(text)
	return doc, nil
}

// checkText refuses bytes on which TOML parsers differ or take too long.
func checkText(text []byte) error {
	switch {
	case len(text) > MaxDocument:
		return fmt.Errorf("%d bytes, at most %d", len(text), MaxDocument)
	case bytes.HasPrefix(text, []byte("\xef\xbb\xbf")):
		return fmt.Errorf("begins with a byte order mark")
	case !utf8.Valid(text):
		return fmt.Errorf("not UTF-8")
	case bytes.IndexByte(text, '\r') >= 0:
		return fmt.Errorf("has a carriage return; use LF line ends")
	}
	return checkStructure(text)
}

// fromTable takes the document's three keys from the decoded table.
func fromTable(top map[string]any) (*Document, error) {
	for key := range top {
		if key != "version" && key != "algorithm" && key != "data" {
			return nil, fmt.Errorf("unknown key %.64q", key)
		}
	}
	if version, ok := top["version"].(string); !ok || version != Version {
		return nil, fmt.Errorf("version must be %q", Version)
	}
	name, _ := top["algorithm"].(string)
	algorithm := Algorithm(name)
	if algorithm.new() == nil {
		return nil, fmt.Errorf("algorithm must be %q, %q or %q", SHA256, SHA384, SHA512)
	}
	table, ok := top["data"].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("data must be a table")
	}
	data := make(map[string]string, len(table))
	for key, value := range table {
		if data[key], ok = value.(string); !ok {
			return nil, fmt.Errorf("data %.64q must be a string", key)
		}
	}
	return &Document{algorithm: algorithm, data: data}, nil
}

// Bytes returns the document's exact bytes, those that its digest is over.
func (d *Document) Bytes() []byte { return bytes.Clone(d.text) }

// Algorithm returns the hash that the document's digest is made with.
func (d *Document) Algorithm() Algorithm { return d.algorithm }

// Digest returns the hash of the document's bytes with its algorithm: 32, 48 or
// 64 bytes. Fit makes it as long as a field of the hardware.
func (d *Document) Digest() []byte {
	h := d.algorithm.new()
	h.Write(d.text)
	return h.Sum(nil)
}

// Keys returns the keys of the data table, sorted.
func (d *Document) Keys() []string { return slices.Sorted(maps.Keys(d.data)) }

// Value returns the string at key in the data table, and whether there is one.
func (d *Document) Value(key string) (string, bool) {
	value, ok := d.data[key]
	return value, ok
}
