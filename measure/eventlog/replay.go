// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"bytes"
	"crypto"
	_ "crypto/sha1"   // the sha1 bank
	_ "crypto/sha256" // the sha256 bank
	_ "crypto/sha512" // the sha384 and sha512 banks
	"fmt"
)

// Values holds the value of one register in each of its banks, by the bank's hash algorithm.
type Values map[string]Hex

// hash returns the bank algorithms that a log can state, 0 for any other.
func hash(alg string) crypto.Hash {
	switch alg {
	case "sha1":
		return crypto.SHA1
	case "sha256":
		return crypto.SHA256
	case "sha384":
		return crypto.SHA384
	case "sha512":
		return crypto.SHA512
	}
	return 0
}

// Size returns the length in bytes of a digest in algorithm alg ("sha1", "sha256", "sha384", "sha512"), 0 for any other.
func Size(alg string) int {
	if h := hash(alg); h != 0 {
		return h.Size()
	}
	return 0
}

// Sum returns the digest of the given parts, joined, in algorithm alg. It returns [ErrInvalid] for an unknown one.
func Sum(alg string, parts ...[]byte) ([]byte, error) {
	h := hash(alg)
	if h == 0 {
		return nil, fmt.Errorf("%w: unknown hash %.32q", ErrInvalid, alg)
	}
	w := h.New()
	for _, p := range parts {
		w.Write(p)
	}
	return w.Sum(nil), nil
}

// BindingDigest returns the digest of a text that is bound by it: as [Sum], but in sha256, sha384 or sha512.
func BindingDigest(alg string, text []byte) ([]byte, error) {
	if hash(alg) == crypto.SHA1 {
		return nil, fmt.Errorf("%w: sha1 binds nothing", ErrInvalid)
	}
	return Sum(alg, text)
}

// BankDigest returns what is extended into the bank of algorithm alg to measure a SHA-256 digest of 32 bytes: the digest
// itself in the sha256 bank, where verifiers expect it, and the bank's own hash of those 32 bytes in every other one. So
// every bank's value follows from the digest alone.
func BankDigest(alg string, sha256 []byte) ([]byte, error) {
	if len(sha256) != 32 {
		return nil, fmt.Errorf("%w: a register takes a digest of 32 bytes, not %d", ErrInvalid, len(sha256))
	}
	if alg == "sha256" {
		return sha256, nil
	}
	return Sum(alg, sha256)
}

// Extend returns H(value ‖ digest), the value of a register of bank alg after TPM2_PCR_Extend (TPM 2.0 Part 3, 22.2). Both must
// be as long as the algorithm's digest.
func Extend(alg string, value, digest []byte) ([]byte, error) {
	if len(value) != Size(alg) || len(digest) != Size(alg) {
		return nil, fmt.Errorf("%w: extending a %s register of %d bytes by %d bytes", ErrInvalid, alg, len(value), len(digest))
	}
	return Sum(alg, value, digest)
}

// Split returns the records of the policy's binding, and those of the pod's life, each in their order.
func Split(records []Record) (binding, pod []Record) {
	for _, r := range records {
		if r.Content.EventType == Pod {
			pod = append(pod, r)
		} else {
			binding = append(binding, r)
		}
	}
	return binding, pod
}

// Replay recomputes register pcr from zero in every bank that the records name: those of one kind, see [Split]. Records without a
// PCR are skipped. It returns [ErrInvalid] when a record is of another PCR or when its prev and next do not fit the replayed
// sha256 value. A bank that is in no record is not in the result: its value is still zero.
func Replay(records []Record, pcr uint32) (Values, error) {
	values := Values{}
	for _, r := range records {
		if r.PCR == nil {
			continue
		}
		if *r.PCR != pcr {
			return nil, fmt.Errorf("%w: record %d is of PCR %d, want %d", ErrInvalid, r.Num, *r.PCR, pcr)
		}
		prev := values.get("sha256")
		for _, d := range r.Digests {
			next, err := Extend(d.HashAlg, values.get(d.HashAlg), d.Digest)
			if err != nil {
				return nil, err
			}
			values[d.HashAlg] = next
		}
		if next := values.get("sha256"); !bytes.Equal(r.Content.Prev, prev) || !bytes.Equal(r.Content.Next, next) {
			return nil, fmt.Errorf("%w: record %d goes from %s to %s, the replay from %s to %s",
				ErrInvalid, r.Num, r.Content.Prev, r.Content.Next, prev, next)
		}
	}
	return values, nil
}

// get returns the bank's value, all zero when nothing was extended.
func (v Values) get(alg string) Hex {
	if value, ok := v[alg]; ok {
		return value
	}
	return make(Hex, Size(alg))
}

// Equal says whether v and w hold the same value in every bank that either names; a bank that is not named is zero.
func (v Values) Equal(w Values) bool {
	for alg := range v {
		if !bytes.Equal(v.get(alg), w.get(alg)) {
			return false
		}
	}
	for alg := range w {
		if !bytes.Equal(v.get(alg), w.get(alg)) {
			return false
		}
	}
	return true
}

// Zero says whether every bank is zero.
func (v Values) Zero() bool { return v.Equal(nil) }
