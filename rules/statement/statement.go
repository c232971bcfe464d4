// SPDX-License-Identifier: Apache-2.0

// Package statement says what policies were made from, in the form that supply-chain tools read: an in-toto Statement v1
// whose predicate is SLSA Provenance v1 (in-toto.io/Statement/v1, slsa.dev/provenance/v1).
//
// Its subjects are the policies, and the initdata documents that carry them, by the digests that hardware binds; its
// resolved dependencies are the manifests, configurations and settings read, the rules, and the images. It has no time and
// no place: who makes the same policies again has the same bytes.
package statement

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"portcullis/internal/strictjson"
)

// The types that name the format.
const (
	Type          = "https://in-toto.io/Statement/v1"
	PredicateType = "https://slsa.dev/provenance/v1"
	BuildType     = "urn:portcullis:genpolicy:v1" // of external parameters and dependencies as this package writes them
	Builder       = "urn:portcullis:genpolicy"
)

// MaxBytes bounds a statement that is read.
const MaxBytes = 4 << 20

// ErrForm says that a text is no statement about policies as this package writes them.
var ErrForm = errors.New("is no statement about policies")

// Descriptor names content by its digests, in hexadecimal by algorithm: "sha256", "sha384", "sha512".
type Descriptor struct {
	Name   string            `json:"name,omitempty"`
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest"`
}

// Statement is the whole of it.
type Statement struct {
	Type          string       `json:"_type"`
	Subject       []Descriptor `json:"subject"`
	PredicateType string       `json:"predicateType"`
	Predicate     Provenance   `json:"predicate"`
}

// Provenance is the predicate.
type Provenance struct {
	BuildDefinition BuildDefinition `json:"buildDefinition"`
	RunDetails      RunDetails      `json:"runDetails"`
}

// BuildDefinition says what was asked for, and of what.
type BuildDefinition struct {
	BuildType            string       `json:"buildType"`
	ExternalParameters   Parameters   `json:"externalParameters"`
	ResolvedDependencies []Descriptor `json:"resolvedDependencies"`
}

// Parameters are the user's choices that are no files.
type Parameters struct {
	Platform string   `json:"platform"`           // "guest-pull"
	DropIns  []string `json:"dropIns,omitempty"`  // settings that have a name, such as "logs"
	Form     string   `json:"form"`               // "full" or "compact"
	SignedBy []string `json:"signedBy,omitempty"` // one of them signed each image: SHA-256 of a public key's PEM file, or an identity
}

// RunDetails say who made it.
type RunDetails struct {
	Builder struct {
		ID      string            `json:"id"`
		Version map[string]string `json:"version"`
	} `json:"builder"`
}

// New makes a statement of the policies by a build of genpolicy. Subjects and dependencies are sorted, and named once.
func New(build string, parameters Parameters, subjects, dependencies []Descriptor) *Statement {
	s := &Statement{Type: Type, Subject: sorted(subjects), PredicateType: PredicateType}
	s.Predicate.BuildDefinition = BuildDefinition{BuildType: BuildType, ExternalParameters: parameters, ResolvedDependencies: sorted(dependencies)}
	s.Predicate.RunDetails.Builder.ID = Builder
	s.Predicate.RunDetails.Builder.Version = map[string]string{"genpolicy": build}
	return s
}

func sorted(all []Descriptor) []Descriptor {
	byText := map[string]Descriptor{}
	for _, d := range all {
		byText[fmt.Sprint(d.URI, "\x00", d.Name, "\x00", d.Digest)] = d
	}
	out := make([]Descriptor, 0, len(byText))
	for _, key := range slices.Sorted(maps.Keys(byText)) {
		out = append(out, byText[key])
	}
	return out
}

// Text is the statement in JSON, with a line feed at the end.
func (s *Statement) Text() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(s); err != nil {
		return nil, fmt.Errorf("write statement: %w", err)
	}
	return b.Bytes(), nil
}

// Parse reads a statement. The error wraps [ErrForm] for what is none, or one of another predicate.
func Parse(text []byte) (*Statement, error) {
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("%w: it has %d bytes, and at most %d are read", ErrForm, len(text), MaxBytes)
	}
	var s Statement
	if err := strictjson.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	build := s.Predicate.BuildDefinition.BuildType
	for _, type_ := range []struct{ name, got, want string }{
		{"_type", s.Type, Type}, {"predicateType", s.PredicateType, PredicateType}, {"buildType", build, BuildType},
	} {
		if type_.got != type_.want {
			return nil, fmt.Errorf("%w: %s is %.80q, want %q", ErrForm, type_.name, type_.got, type_.want)
		}
	}
	if len(s.Subject) == 0 {
		return nil, fmt.Errorf("%w: it has no subject", ErrForm)
	}
	return &s, nil
}

// About finds the subject with a digest, "" for none. digest is of an algorithm's length, in bytes.
func (s *Statement) About(algorithm string, digest []byte) string {
	want := hex.EncodeToString(digest)
	for _, d := range s.Subject {
		if strings.EqualFold(d.Digest[algorithm], want) {
			return d.Name
		}
	}
	return ""
}
