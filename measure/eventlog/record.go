// SPDX-License-Identifier: Apache-2.0

// Package eventlog is the log that stands beside one measurement register: what was measured, in which order, so that a
// verifier can recompute the register's value.
//
// The file is a JSON text sequence (RFC 7464: 0x1E, one JSON object, LF) in the field names of systemd's
// tpm2-measure.log, so that any replayer of that format can replay it: the digests of a record are exactly the values that
// were extended. Records never hold the text that was measured, only its digest and length.
//
// Encoding is canonical and decoding strict: a record that does not re-encode to the very same bytes is refused, which rules
// out unknown, repeated and case-folded keys, white space and alternative escapes. A last record without its LF, which a crash
// in the middle of a write leaves behind, is tolerated by [DecodePartial] only.
package eventlog

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
)

// ContentType is the content_type of every record of this log.
const ContentType = "portcullis"

// Bounds of the log. A log that is larger, or holds a larger record, is refused by the writer and by every reader.
const (
	MaxRecordSize = 4 << 10 // bytes of one record, framing included
	MaxLogSize    = 1 << 20 // bytes of the whole log
)

// Event types and, with the same words, bindings.
const (
	Policy   = "policy"   // the digest of the policy text
	Initdata = "initdata" // the digest of the initdata document that holds the policy
	Pod      = "pod"      // a fact of the pod's life, in a register of its own: see [TextDigest]
	Fragment = "fragment" // a signed update of the policy before it, in the policy's register: see [TextDigest]
)

// MaxEvent is the longest text of a [Pod] or [Fragment] event, in bytes.
const MaxEvent = 1 << 10

// ErrInvalid is returned for bytes that are not a well-formed log, and for a record that must not be written into one.
var ErrInvalid = errors.New("invalid event log")

// Hex is a byte string that is written as lower-case hexadecimal digits, and read in no other form.
type Hex []byte

// String returns the hexadecimal digits.
func (h Hex) String() string { return hex.EncodeToString(h) }

// MarshalText implements [encoding.TextMarshaler].
func (h Hex) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (h *Hex) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil {
		return err
	}
	*h = b
	return nil
}

// Record is one event. The order of its fields is the order in the file.
type Record struct {
	// Num counts records from 0.
	Num uint64 `json:"recnum"`
	// PCR is the register that was extended; nil when there is none (SNP, TDX: the value is fixed at launch).
	PCR *uint32 `json:"pcr,omitempty"`
	// Digests holds the value extended into each bank. Without a PCR it holds the digest of the event in its own algorithm.
	Digests []Digest `json:"digests"`
	// ContentType is [ContentType].
	ContentType string  `json:"content_type"`
	Content     Content `json:"content"`
}

// Digest is one bank's digest.
type Digest struct {
	HashAlg string `json:"hashAlg"` // "sha1", "sha256", "sha384" or "sha512"
	Digest  Hex    `json:"digest"`  // as long as HashAlg says
}

// Content says what was measured.
type Content struct {
	EventType string `json:"eventType"` // [Policy], [Initdata], [Pod] or [Fragment]
	Binding   string `json:"binding"`   // the same words: what the field or register is bound to
	Alg       string `json:"alg"`       // "sha256", "sha384" or "sha512": which of the three digests below is set
	SHA256    Hex    `json:"sha256,omitempty"`
	SHA384    Hex    `json:"sha384,omitempty"`
	SHA512    Hex    `json:"sha512,omitempty"`
	Len       int64  `json:"len"` // bytes measured
	// Event is the text of a [Pod] or [Fragment] event, "domain operation content"; empty for all others.
	Event string `json:"event,omitempty"`
	Seq   uint64 `json:"seq"` // Num+1
	// Prev and Next are the sha256 bank's value before and after; 32 bytes, set exactly when the record has a PCR or is of the
	// pod: without a PCR those are chained as if there were one.
	Prev Hex `json:"prev,omitempty"`
	Next Hex `json:"next,omitempty"`
	// Verified marks a PCR that another unit had extended with this digest: the record states it, nothing was extended.
	Verified bool `json:"verified,omitempty"`
	// Field, Value and Match are set exactly when the record has no PCR: the launch field that was read ("hostdata",
	// "mrconfigid"), its value, and whether the digest is bound by it.
	Field     string `json:"field,omitempty"`
	Value     Hex    `json:"value,omitempty"`
	Match     *bool  `json:"match,omitempty"`
	BootID    string `json:"bootId"`    // 32 hexadecimal digits, or empty
	Timestamp uint64 `json:"timestamp"` // CLOCK_BOOTTIME in microseconds
}

// Digest returns the digest of what was measured, in algorithm Alg; nil when Alg is none of the three.
func (c Content) Digest() []byte {
	switch c.Alg {
	case "sha256":
		return c.SHA256
	case "sha384":
		return c.SHA384
	case "sha512":
		return c.SHA512
	}
	return nil
}

// SetDigest sets Alg and the digest that belongs to it, and clears the others. An unknown alg leaves no digest set.
func (c *Content) SetDigest(alg string, digest []byte) {
	c.Alg, c.SHA256, c.SHA384, c.SHA512 = alg, nil, nil, nil
	switch alg {
	case "sha256":
		c.SHA256 = digest
	case "sha384":
		c.SHA384 = digest
	case "sha512":
		c.SHA512 = digest
	}
}

var (
	bootID = regexp.MustCompile(`^([0-9a-f]{32})?$`)
	word   = regexp.MustCompile(`^[a-z0-9]{1,32}$`)
)

// maxField is the length of the longest launch field (an SGX or CCA one) that a record may state, in bytes.
const maxField = 64

// check says whether the record could be the num'th of a log.
func (r Record) check(num int) error {
	switch {
	case r.Num != uint64(num) || r.Content.Seq != r.Num+1:
		return fmt.Errorf("%w: record %d is numbered %d, seq %d", ErrInvalid, num, r.Num, r.Content.Seq)
	case r.ContentType != ContentType:
		return fmt.Errorf("%w: record %d has content type %.32q, want %q", ErrInvalid, num, r.ContentType, ContentType)
	}
	if err := checkDigests(r.Digests); err != nil {
		return fmt.Errorf("%w: record %d: %w", ErrInvalid, num, err)
	}
	if err := r.Content.check(); err != nil {
		return fmt.Errorf("%w: record %d: %w", ErrInvalid, num, err)
	}
	check := r.checkField
	if r.PCR != nil {
		check = r.checkPCR
	}
	if err := check(); err != nil {
		return fmt.Errorf("%w: record %d: %w", ErrInvalid, num, err)
	}
	return nil
}

func checkDigests(digests []Digest) error {
	if len(digests) == 0 {
		return errors.New("no digests")
	}
	seen := map[string]bool{}
	for _, d := range digests {
		switch size := Size(d.HashAlg); {
		case size == 0:
			return fmt.Errorf("unknown hash %.32q", d.HashAlg)
		case len(d.Digest) != size:
			return fmt.Errorf("%s digest of %d bytes, want %d", d.HashAlg, len(d.Digest), size)
		case seen[d.HashAlg]:
			return fmt.Errorf("two %s digests", d.HashAlg)
		}
		seen[d.HashAlg] = true
	}
	return nil
}

func isType(word string) bool {
	return word == Policy || word == Initdata || word == Pod || word == Fragment
}

// textual says whether events of a type are a text, whose digest is measured.
func textual(word string) bool { return word == Pod || word == Fragment }

func (c Content) check() error {
	if !isType(c.EventType) {
		return fmt.Errorf("unknown event type %.32q", c.EventType)
	}
	if !isType(c.Binding) {
		return fmt.Errorf("unknown binding %.32q", c.Binding)
	}
	if textual(c.EventType) != textual(c.Binding) || textual(c.EventType) && c.EventType != c.Binding || textual(c.EventType) != (c.Event != "") {
		return errors.New("an event of the pod or of a fragment has a binding of its own type and a text, and no other has")
	}
	if textual(c.EventType) {
		if err := c.checkText(); err != nil {
			return err
		}
	}
	if err := c.checkDigest(); err != nil {
		return err
	}
	if c.Len < 0 {
		return fmt.Errorf("negative length %d", c.Len)
	}
	if !bootID.MatchString(c.BootID) {
		return fmt.Errorf("boot id %.40q is not 32 hexadecimal digits", c.BootID)
	}
	return nil
}

func (c Content) checkDigest() error {
	set := 0
	for _, d := range []Hex{c.SHA256, c.SHA384, c.SHA512} {
		if d != nil {
			set++
		}
	}
	if d := c.Digest(); set != 1 || d == nil || len(d) != Size(c.Alg) {
		return fmt.Errorf("no digest of its algorithm %.32q", c.Alg)
	}
	return nil
}

func (r Record) checkPCR() error {
	c := r.Content
	switch {
	case *r.PCR > 23:
		return fmt.Errorf("no PCR %d", *r.PCR)
	case len(c.Prev) != 32 || len(c.Next) != 32:
		return errors.New("prev and next must be of 32 bytes")
	case c.Field != "" || c.Value != nil || c.Match != nil:
		return errors.New("a PCR record has a launch field")
	case c.Alg != "sha256":
		return fmt.Errorf("a PCR record has algorithm %s, want sha256", c.Alg)
	}
	for _, d := range r.Digests {
		want, err := c.bankDigest(d.HashAlg)
		if err != nil {
			return err
		}
		if !bytes.Equal(d.Digest, want) {
			return fmt.Errorf("the %s bank's digest is %s, want %s", d.HashAlg, d.Digest, Hex(want))
		}
	}
	return nil
}

// bankDigest returns what is extended into a bank to measure the event.
func (c Content) bankDigest(alg string) ([]byte, error) {
	if textual(c.EventType) {
		return TextDigest(alg, c.Event)
	}
	return BankDigest(alg, c.SHA256)
}

func (r Record) checkField() error {
	c := r.Content
	if c.EventType == Pod {
		return r.checkChained()
	}
	switch {
	case c.EventType == Fragment:
		return errors.New("a fragment is in no register")
	case c.Prev != nil || c.Next != nil || c.Verified:
		return errors.New("a launch field record has register values")
	case !word.MatchString(c.Field):
		return fmt.Errorf("no launch field is called %.40q", c.Field)
	case len(c.Value) == 0 || len(c.Value) > maxField:
		return fmt.Errorf("launch field of %d bytes, want 1 to %d", len(c.Value), maxField)
	case c.Match == nil:
		return errors.New("a launch field record says no match")
	case len(r.Digests) != 1 || r.Digests[0].HashAlg != c.Alg || !bytes.Equal(r.Digests[0].Digest, c.Digest()):
		return errors.New("digests differ from the content's digest")
	}
	return nil
}
