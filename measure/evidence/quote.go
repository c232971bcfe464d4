// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// tpmGenerated is TPM_GENERATED_VALUE, with which every structure begins that a restricted key signs (TPM 2.0 Part 2, 6.2).
const tpmGenerated = 0xff544347

// quoted is a TPMS_ATTEST of type TPM_ST_ATTEST_QUOTE.
type quoted struct {
	extraData []byte
	selection []tpm2.TPMSPCRSelection
	digest    []byte
	// values are the selected PCRs in the order of the selection; nil when unknown.
	values [][]byte
}

func parseQuote(message []byte) (*quoted, error) {
	a, err := unmarshalAll[tpm2.TPMSAttest](message)
	if err != nil {
		return nil, fmt.Errorf("TPMS_ATTEST: %w", err)
	}
	if a.Magic != tpmGenerated || a.Type != tpm2.TPMSTAttestQuote {
		return nil, fmt.Errorf("magic %#08x, type %#04x: not a TPM's quote", uint32(a.Magic), uint16(a.Type))
	}
	info, err := a.Attested.Quote()
	if err != nil {
		return nil, err
	}
	return &quoted{extraData: a.ExtraData.Buffer, selection: info.PCRSelect.PCRSelections, digest: info.PCRDigest.Buffer}, nil
}

// position returns the place of a PCR of the sha256 bank among the selected ones, and how many there are.
func (q *quoted) position(pcr uint32) (at, n int) {
	at = -1
	for _, s := range q.selection {
		for i := range uint32(len(s.PCRSelect) * 8) {
			if s.PCRSelect[i/8]&(1<<(i%8)) == 0 {
				continue
			}
			if s.Hash == tpm2.TPMAlgSHA256 && i == pcr {
				at = n
			}
			n++
		}
	}
	return at, n
}

// sizes returns the length of each selected PCR.
func (q *quoted) sizes() (sizes []int, err error) {
	for _, s := range q.selection {
		h, err := s.Hash.Hash()
		if err != nil {
			return nil, err
		}
		for _, b := range s.PCRSelect {
			for ; b != 0; b &= b - 1 {
				sizes = append(sizes, h.Size())
			}
		}
	}
	return sizes, nil
}

// The layout of tpm2_quote's PCR file (-o, format "serialized"): the C structures TPML_PCR_SELECTION, a little-endian count, and
// that many TPML_DIGEST, little-endian and padded as on x86 and arm64.
const (
	selectionListSize = 4 + 16*8 // count, 16 × {u16 hash, u8 size, u8[4] select, padding}
	digestListSize    = 4 + 8*66 // count, 8 × {u16 size, u8[64]}
	digestSlotSize    = 66
	maxDigestLists    = 64
)

// setValues takes the PCR values that go with the quote, joined (tpm2_quote -F values) or as tpm2_quote writes them by default,
// and checks them against the quote's digest, whose hash is h.
func (q *quoted) setValues(file []byte, h crypto.Hash) error {
	sizes, err := q.sizes()
	if err != nil {
		return err
	}
	total := 0
	for _, n := range sizes {
		total += n
	}
	if len(file) != total {
		if file, err = serializedValues(file); err != nil {
			return err
		}
		if len(file) != total {
			return fmt.Errorf("%d bytes of PCR values, the quote covers %d", len(file), total)
		}
	}
	if !bytes.Equal(digest(h, file), q.digest) {
		return errors.New("the PCR values are not those that were quoted")
	}
	q.values = nil
	for _, n := range sizes {
		q.values, file = append(q.values, file[:n]), file[n:]
	}
	return nil
}

// serializedValues joins the values in tpm2_quote's default format.
func serializedValues(file []byte) ([]byte, error) {
	errFormat := errors.New("not a PCR file of tpm2_quote")
	if len(file) < selectionListSize+4 {
		return nil, errFormat
	}
	file = file[selectionListSize:]
	lists := binary.LittleEndian.Uint32(file)
	file = file[4:]
	if lists > maxDigestLists || len(file) != int(lists)*digestListSize {
		return nil, errFormat
	}
	var joined []byte
	for ; len(file) > 0; file = file[digestListSize:] {
		count := binary.LittleEndian.Uint32(file)
		if count > 8 {
			return nil, errFormat
		}
		for i := range int(count) {
			slot := file[4+i*digestSlotSize:][:digestSlotSize]
			n := binary.LittleEndian.Uint16(slot)
			if n > digestSlotSize-2 {
				return nil, errFormat
			}
			joined = append(joined, slot[2:2+n]...)
		}
	}
	return joined, nil
}

// holds says whether the quote shows that a PCR has a value. known is false when the quote covers other PCRs too and their
// values were not given.
func (q *quoted) holds(pcr uint32, value []byte, h crypto.Hash) (holds, known bool) {
	at, n := q.position(pcr)
	switch {
	case at < 0:
		return false, true
	case q.values != nil:
		return bytes.Equal(q.values[at], value), true
	case n == 1:
		return bytes.Equal(digest(h, value), q.digest), true
	}
	return false, false
}
