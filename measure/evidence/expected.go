// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"

	"portcullis/measure/eventlog"
)

// Lengths of the launch fields, in bytes.
const (
	hostDataSize   = 32
	mrConfigIDSize = 48
)

// ErrDigest is returned for a digest that cannot be bound.
var ErrDigest = errors.New("digest cannot be bound")

// Bound is the digest of the policy or initdata that evidence should show.
type Bound struct {
	Alg    string // "sha256", "sha384" or "sha512"
	Digest []byte // as long as Alg says
}

func (b Bound) check() error {
	if size := eventlog.Size(b.Alg); b.Alg == "sha1" || size == 0 || len(b.Digest) != size {
		return fmt.Errorf("%w: %d bytes of algorithm %.16q", ErrDigest, len(b.Digest), b.Alg)
	}
	return nil
}

// Value is a field's value in the two notations that hypervisors and attestation services take.
type Value struct {
	Hex    string `json:"hex"`
	Base64 string `json:"base64"`
}

// Expected is what each binding holds when a digest is bound.
type Expected struct {
	Alg        string `json:"alg"`
	Digest     Value  `json:"digest"`
	HostData   Value  `json:"hostdata"`   // SNP HOST_DATA, 32 bytes
	MRConfigID Value  `json:"mrconfigid"` // TDX MRCONFIGID, 48 bytes
	// PCR is the register after one extend from zero, hexadecimal, by bank. It is empty unless Alg is "sha256", which is what
	// a vTPM takes.
	PCR map[string]string `json:"pcr,omitempty"`
}

// Expect computes what a digest becomes. A launch field takes it zero-padded or cut at its end, as the initdata specification
// says. It returns [ErrDigest] for one of the wrong length.
func Expect(b Bound) (Expected, error) {
	if err := b.check(); err != nil {
		return Expected{}, err
	}
	e := Expected{Alg: b.Alg, Digest: value(b.Digest), HostData: value(fit(b.Digest, hostDataSize)),
		MRConfigID: value(fit(b.Digest, mrConfigIDSize))}
	if b.Alg != "sha256" {
		return e, nil
	}
	e.PCR = map[string]string{}
	for _, bank := range []string{"sha1", "sha256", "sha384", "sha512"} {
		v, err := extendOnce(bank, b.Digest)
		if err != nil {
			return Expected{}, err
		}
		e.PCR[bank] = hex.EncodeToString(v)
	}
	return e, nil
}

// extendOnce returns a bank's PCR after one measurement of a SHA-256 digest from zero.
func extendOnce(bank string, sha256 []byte) ([]byte, error) {
	d, err := eventlog.BankDigest(bank, sha256)
	if err != nil {
		return nil, err
	}
	return eventlog.Extend(bank, make([]byte, eventlog.Size(bank)), d)
}

func value(b []byte) Value {
	return Value{hex.EncodeToString(b), base64.StdEncoding.EncodeToString(b)}
}

// fit pads d with zeros, or cuts it, at its end to n bytes.
func fit(d []byte, n int) []byte {
	out := make([]byte, n)
	copy(out, d)
	return out
}

// field adds the check that a launch field binds the digest, all of it. An all-zero field binds nothing.
func (r *Result) field(name string, got []byte, b Bound) {
	if err := b.check(); err != nil {
		r.unknown(name, err.Error())
		return
	}
	r.compare(name, got, fit(b.Digest, len(got)))
}
