// SPDX-License-Identifier: Apache-2.0

package hostdata_test

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"portcullis/hostdata"
	"portcullis/hostdata/initdata"
	"portcullis/internal/hostdatatest"
)

// readField reads what is bound through the fake hardware, as a guest would.
func readField(t *testing.T, kind hostdata.Kind, value []byte) hostdata.Field {
	t.Helper()
	guest := hostdatatest.Guest{}
	switch kind {
	case hostdata.SNP:
		guest.SNP = &hostdatatest.SNP{HostData: [32]byte(value)}
	case hostdata.TDX:
		guest.TDX = &hostdatatest.TDX{MRConfigID: [48]byte(value)}
	}
	field, err := hostdata.Read(t.Context(), kind, hostdata.Options{System: system(t, guest)})
	if err != nil {
		t.Fatal(err)
	}
	return field
}

func TestMatch(t *testing.T) {
	policy := []byte("package agent_policy\n")
	d256, d384, d512 := sha256.Sum256(policy), sha512.Sum384(policy), sha512.Sum512(policy)
	other := sha256.Sum256([]byte("package agent_policy"))
	pad := func(d []byte) []byte { return append(slices.Clone(d), make([]byte, 48-len(d))...) }
	with := func(d []byte, index int, bit byte) []byte { d = slices.Clone(d); d[index] ^= bit; return d }
	swapped := func(d []byte) []byte {
		d = slices.Clone(d)
		for i := 0; i < len(d); i += 8 {
			binary.BigEndian.PutUint64(d[i:], binary.LittleEndian.Uint64(d[i:]))
		}
		return d
	}
	tests := []struct {
		name   string
		kind   hostdata.Kind
		bound  []byte
		digest []byte
		reason string
	}{
		{"SNP: SHA-256", hostdata.SNP, d256[:], d256[:], ""},
		{"SNP: SHA-384 truncated", hostdata.SNP, d384[:32], d384[:], ""},
		{"SNP: SHA-512 truncated", hostdata.SNP, d512[:32], d512[:], ""},
		{"SNP: first bit flipped", hostdata.SNP, with(d256[:], 0, 0x80), d256[:], "digest-mismatch"},
		{"SNP: last bit flipped", hostdata.SNP, with(d256[:], 31, 1), d256[:], "digest-mismatch"},
		{"SNP: last truncated bit flipped", hostdata.SNP, with(d384[:32], 31, 1), d384[:], "digest-mismatch"},
		{"SNP: another policy", hostdata.SNP, other[:], d256[:], "digest-mismatch"},
		{"SNP: words byte-swapped", hostdata.SNP, swapped(d256[:]), d256[:], "digest-mismatch"},
		{"SNP: short digest", hostdata.SNP, d256[:], d256[:31], "digest-mismatch"},
		{"SNP: SHA-1", hostdata.SNP, d256[:], d256[:20], "digest-mismatch"},
		{"SNP: empty digest", hostdata.SNP, d256[:], nil, "digest-mismatch"},
		{"SNP: end of a SHA-512 does not matter by the specification", hostdata.SNP, d512[:32], with(d512[:], 63, 1), ""},
		{"TDX: SHA-384", hostdata.TDX, d384[:], d384[:], ""},
		{"TDX: SHA-256 padded", hostdata.TDX, pad(d256[:]), d256[:], ""},
		{"TDX: SHA-512 truncated", hostdata.TDX, d512[:48], d512[:], ""},
		{"TDX: first bit flipped", hostdata.TDX, with(d384[:], 0, 0x80), d384[:], "digest-mismatch"},
		{"TDX: last bit flipped", hostdata.TDX, with(d384[:], 47, 1), d384[:], "digest-mismatch"},
		{"TDX: first padding bit set", hostdata.TDX, with(pad(d256[:]), 32, 0x80), d256[:], "digest-mismatch"},
		{"TDX: last padding bit set", hostdata.TDX, with(pad(d256[:]), 47, 1), d256[:], "digest-mismatch"},
		{"TDX: words byte-swapped", hostdata.TDX, swapped(d384[:]), d384[:], "digest-mismatch"},
		{"TDX: padded in front", hostdata.TDX, append(make([]byte, 16), d256[:]...), d256[:], "digest-mismatch"},
		{"TDX: short digest", hostdata.TDX, pad(d256[:]), d256[:31], "digest-mismatch"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			field := readField(t, tt.kind, tt.bound)
			wantReason(t, field.Match(tt.digest), tt.reason)
		})
	}
}

func TestMatchSaysBothValues(t *testing.T) {
	bound, digest := hostData("bound"), hostData("sent")
	err := readField(t, hostdata.SNP, bound[:]).Match(digest[:])
	var mismatch *hostdata.MismatchError
	if !errors.As(err, &mismatch) {
		t.Fatalf("error %v", err)
	}
	if mismatch.Field != "hostdata" || !slices.Equal(mismatch.Got, bound[:]) || !slices.Equal(mismatch.Want, digest[:]) {
		t.Errorf("mismatch %+v", mismatch)
	}
}

func TestMatchShortDigestIsNotAMismatch(t *testing.T) {
	bound := hostData("bound")
	if err := readField(t, hostdata.SNP, bound[:]).Match(bound[:16]); !errors.Is(err, initdata.ErrShortDigest) {
		t.Errorf("error %v", err)
	}
}

func TestMatchOfNoFieldNeverSucceeds(t *testing.T) {
	digest := hostData("policy")
	wantReason(t, hostdata.Field{}.Match(digest[:]), "digest-mismatch")
}

func TestReasonOfOtherErrors(t *testing.T) {
	if got := hostdata.Reason(errors.New("other")); got != "" {
		t.Errorf("reason %q", got)
	}
	if got := hostdata.Reason(nil); got != "" {
		t.Errorf("reason %q of nil", got)
	}
}
