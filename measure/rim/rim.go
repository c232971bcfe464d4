// SPDX-License-Identifier: Apache-2.0

// Package rim writes reference values for verifier services: what a launch field, a register or a policy must be, as a message of
// Trustee's reference value provider (RVPS) and as an unsigned CoRIM (draft-ietf-rats-corim) with one CoMID.
//
// Both carry the same names, since the service makes the names of a CoRIM's values of its parts, joined by "/": vendor, model, key,
// and "digests" or "raw_bytes".
package rim

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/fxamacker/cbor/v2"
)

// Vendor is the class vendor of all values.
const Vendor = "portcullis"

// ErrInvalid is returned for values that cannot be written, and by [ReadCoRIM] for what is not of this package's form.
var ErrInvalid = errors.New("invalid reference values")

// Value is what one thing must be. Exactly one of Raw and Digests is set.
type Value struct {
	Model   string // "snp", "tdx", "tpm", "policy"
	Key     string // "hostdata", "mrconfigid", "pcr8", "rules"
	Raw     []byte // the bytes of a field
	Digests []Digest
}

// Digest is a digest in one algorithm: "sha256", "sha384" or "sha512".
type Digest struct {
	Alg   string
	Value []byte
}

// Name is the name by which a policy of the service asks for the value.
func (v Value) Name() string {
	kind := "raw_bytes"
	if v.Raw == nil {
		kind = "digests"
	}
	return strings.Join([]string{Vendor, v.Model, v.Key, kind}, "/")
}

func (v Value) check() error {
	if v.Model == "" || v.Key == "" || (v.Raw == nil) == (len(v.Digests) == 0) {
		return fmt.Errorf("%w: %s", ErrInvalid, v.Name())
	}
	for _, d := range v.Digests {
		if algorithms[d.Alg] == 0 {
			return fmt.Errorf("%w: %s in %.16q", ErrInvalid, v.Name(), d.Alg)
		}
	}
	return nil
}

// RVPS returns the message that registers the values: {"version", "type": "sample", "payload"}, the payload being base64 of an object
// with a list of hexadecimal values by name.
func RVPS(values []Value) ([]byte, error) {
	sample := map[string][]string{}
	for _, v := range values {
		if err := v.check(); err != nil {
			return nil, err
		}
		list := []string{hex.EncodeToString(v.Raw)}
		if v.Raw == nil {
			list = nil
			for _, d := range v.Digests {
				list = append(list, hex.EncodeToString(d.Value))
			}
		}
		sample[v.Name()] = list
	}
	payload, err := json.Marshal(sample)
	if err != nil {
		return nil, err
	}
	message, err := json.Marshal(struct {
		Version string `json:"version"`
		Type    string `json:"type"`
		Payload string `json:"payload"`
	}{"0.1.0", "sample", base64.StdEncoding.EncodeToString(payload)})
	return append(message, '\n'), err
}

// algorithms are the numbers of digests (IANA, Named Information Hash Algorithm Registry).
var algorithms = map[string]uint64{"sha256": 1, "sha384": 7, "sha512": 8}

// The CBOR tags of the draft.
const (
	tagCoRIM = 501 // unsigned-corim-map
	tagCoMID = 506 // concise-mid-tag, as bytes
	tagBytes = 560 // raw-value
)

// The maps of the draft, by their numbers.
type (
	corimMap struct {
		ID   string     `cbor:"0,keyasint"`
		Tags []cbor.Tag `cbor:"1,keyasint"`
	}
	comidMap struct {
		Identity tagIdentity `cbor:"1,keyasint"`
		Triples  triplesMap  `cbor:"4,keyasint"`
	}
	tagIdentity struct {
		ID string `cbor:"0,keyasint"`
	}
	triplesMap struct {
		Reference []referenceTriple `cbor:"0,keyasint"`
	}
	referenceTriple struct {
		_            struct{} `cbor:",toarray"`
		Environment  environmentMap
		Measurements []measurementMap
	}
	environmentMap struct {
		Class classMap `cbor:"0,keyasint"`
	}
	classMap struct {
		Vendor string `cbor:"1,keyasint"`
		Model  string `cbor:"2,keyasint"`
	}
	measurementMap struct {
		Key    string `cbor:"0,keyasint"`
		Values mval   `cbor:"1,keyasint"`
	}
	mval struct {
		Digests []digest  `cbor:"2,keyasint,omitempty"`
		Raw     *cbor.Tag `cbor:"4,keyasint,omitempty"`
	}
	digest struct {
		_     struct{} `cbor:",toarray"`
		Alg   uint64
		Value []byte
	}
)

// CoRIM returns the values as an unsigned CoRIM. id names it, and the CoMID in it.
func CoRIM(id string, values []Value) ([]byte, error) {
	encode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		return nil, err
	}
	comid := comidMap{Identity: tagIdentity{id}}
	for _, v := range values {
		if err := v.check(); err != nil {
			return nil, err
		}
		m := measurementMap{Key: v.Key}
		if v.Raw != nil {
			m.Values.Raw = &cbor.Tag{Number: tagBytes, Content: v.Raw}
		}
		for _, d := range v.Digests {
			m.Values.Digests = append(m.Values.Digests, digest{Alg: algorithms[d.Alg], Value: d.Value})
		}
		comid.Triples.Reference = append(comid.Triples.Reference,
			referenceTriple{Environment: environmentMap{classMap{Vendor, v.Model}}, Measurements: []measurementMap{m}})
	}
	tag, err := encode.Marshal(comid)
	if err != nil {
		return nil, err
	}
	return encode.Marshal(cbor.Tag{Number: tagCoRIM, Content: corimMap{ID: id, Tags: []cbor.Tag{{Number: tagCoMID, Content: tag}}}})
}

// ReadCoRIM reads what [CoRIM] writes, and returns its id and values. It returns [ErrInvalid] for anything else.
func ReadCoRIM(data []byte) (string, []Value, error) {
	var outer cbor.RawTag
	if err := cbor.Unmarshal(data, &outer); err != nil || outer.Number != tagCoRIM {
		return "", nil, fmt.Errorf("%w: not an unsigned CoRIM: %v", ErrInvalid, err)
	}
	var corim struct {
		ID   string        `cbor:"0,keyasint"`
		Tags []cbor.RawTag `cbor:"1,keyasint"`
	}
	if err := cbor.Unmarshal(outer.Content, &corim); err != nil {
		return "", nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	var values []Value
	for _, tag := range corim.Tags {
		var text []byte
		var comid comidMap
		if err := cbor.Unmarshal(tag.Content, &text); err != nil || tag.Number != tagCoMID {
			return "", nil, fmt.Errorf("%w: not a CoMID: %v", ErrInvalid, err)
		}
		if err := cbor.Unmarshal(text, &comid); err != nil {
			return "", nil, fmt.Errorf("%w: CoMID: %w", ErrInvalid, err)
		}
		for _, triple := range comid.Triples.Reference {
			for _, m := range triple.Measurements {
				v, err := m.value(triple.Environment.Class)
				if err != nil {
					return "", nil, err
				}
				values = append(values, v)
			}
		}
	}
	return corim.ID, values, nil
}

func (m measurementMap) value(class classMap) (Value, error) {
	v := Value{Model: class.Model, Key: m.Key}
	if m.Values.Raw != nil {
		raw, ok := m.Values.Raw.Content.([]byte)
		if !ok || m.Values.Raw.Number != tagBytes {
			return v, fmt.Errorf("%w: raw value with tag %d", ErrInvalid, m.Values.Raw.Number)
		}
		v.Raw = raw
	}
	for _, d := range m.Values.Digests {
		alg := ""
		for name, number := range algorithms {
			if number == d.Alg {
				alg = name
			}
		}
		v.Digests = append(v.Digests, Digest{alg, d.Value})
	}
	if class.Vendor != Vendor {
		return v, fmt.Errorf("%w: of vendor %.40q", ErrInvalid, class.Vendor)
	}
	return v, v.check()
}
