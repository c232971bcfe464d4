// SPDX-License-Identifier: Apache-2.0

// Package policytext takes the text of a policy apart: into the rules, or the digest that names them, and the policy_data of one
// pod. Engine and tools read a text here and nowhere else, so that all of them see the same parts.
package policytext

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"portcullis/internal/strictjson"
)

// Form is how a policy text carries its policy_data.
type Form string

// Values of Form.
const (
	Full    Form = "full"    // the rules, then policy_data as their last rule
	Compact Form = "compact" // the digest of the rules, then policy_data
	Bare    Form = "bare"    // policy_data alone, which is no policy
)

// ErrForm says that a text is in none of the forms: there is no policy_data at its end, or it is not JSON.
var ErrForm = errors.New("no policy_data found")

// ErrTwice says that a text is in one of the forms, and that an object of its policy_data has two members of one name. Engines differ
// in which of them counts.
var ErrTwice = errors.New("policy_data is ambiguous")

// Digest names rules: the SHA-256 of the bytes that precede policy_data in the full form.
type Digest [sha256.Size]byte

// DigestOf is the digest of rules, which are exactly those bytes.
func DigestOf(rules []byte) Digest { return sha256.Sum256(rules) }

// String is the digest as the compact form has it: "sha256:" and 64 lower-case hexadecimal digits.
func (d Digest) String() string { return "sha256:" + hex.EncodeToString(d[:]) }

// Parts are a policy text taken apart. The slices are parts of the text.
type Parts struct {
	Form   Form
	Rules  []byte // full form: the bytes that precede policy_data
	Digest Digest // of the rules, as computed (full form) or as stated (compact form); zero in the bare form
	Data   []byte // policy_data: one JSON value
}

// Held are rules that a guest has in its measured image.
type Held struct {
	// Text is the exact bytes that precede policy_data in the full form.
	Text []byte
	// Reasons is a module of the same package that is compiled beside Text: a rule named reasons and what it needs. It does not
	// count for the digest, and may explain but not decide: it must not define a rule that Text defines. Nil for none.
	Reasons []byte
	// OnDemand rules are compiled when a policy first names them, others also by Warm.
	OnDemand bool
}

var (
	compactHead = regexp.MustCompile(`^package agent_policy\n+rules := "sha256:([0-9a-f]{64})"\n+$`)
	assignment  = []byte("\npolicy_data := ")
)

// Split takes text apart. A text that only resembles the compact form is a full text. That the rules of a full text stand on their
// own, so that policy_data is sure to be a rule and not a part of one, is for the caller to see. The error is ErrForm, or ErrTwice.
func Split(text []byte) (Parts, error) {
	if bare := bytes.TrimSpace(text); bytes.HasPrefix(bare, []byte("{")) {
		return withData(Parts{Form: Bare}, bare)
	}
	at := bytes.LastIndex(text, assignment)
	if at < 0 {
		return Parts{}, ErrForm
	}
	before, data := text[:at+1], text[at+len(assignment):]
	stated := compactHead.FindSubmatch(before)
	if stated == nil {
		return withData(Parts{Form: Full, Rules: before, Digest: DigestOf(before)}, data)
	}
	p := Parts{Form: Compact}
	if _, err := hex.Decode(p.Digest[:], stated[1]); err != nil {
		return Parts{}, ErrForm
	}
	return withData(p, data)
}

func withData(p Parts, data []byte) (Parts, error) {
	p.Data = bytes.TrimSpace(data)
	switch err := strictjson.Check(p.Data); {
	case errors.Is(err, strictjson.ErrTwice):
		return Parts{}, fmt.Errorf("%w: %w", ErrTwice, err)
	case err != nil:
		return Parts{}, ErrForm
	}
	return p, nil
}

// WithData is a full or compact text with another policy_data: one JSON value. The error is ErrForm.
func WithData(text, data []byte) ([]byte, error) {
	at := bytes.LastIndex(text, assignment)
	if at < 0 || strictjson.Check(data) != nil {
		return nil, ErrForm
	}
	return slices.Concat(text[:at+len(assignment)], bytes.TrimSpace(data), []byte("\n")), nil
}
