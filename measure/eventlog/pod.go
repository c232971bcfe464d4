// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// podTag is the id of a tagged event of the attestation agent's event log, "AAEL" in ASCII.
const podTag = 0x4141454c

// tagged returns the data of a TCG_PCClientTaggedEvent with the agent's id: LE32 id, LE32 length, text.
func tagged(text string) []byte {
	data := binary.LittleEndian.AppendUint32(nil, podTag)
	data = binary.LittleEndian.AppendUint32(data, uint32(len(text)))
	return append(data, text...)
}

// TextDigest returns what is extended into the bank of algorithm alg to measure a [Pod] or [Fragment] event: the bank's own hash
// of the event's data in the form of the attestation agent's event log, so that who replays that log can replay this one.
func TextDigest(alg, text string) ([]byte, error) { return Sum(alg, tagged(text)) }

// checkText holds the text of an event to one line that has the given digest.
func (c Content) checkText() error {
	if len(c.Event) > MaxEvent || int64(len(c.Event)) != c.Len {
		return fmt.Errorf("event of %d bytes, len says %d, the limit is %d", len(c.Event), c.Len, MaxEvent)
	}
	if !utf8.ValidString(c.Event) {
		return errors.New("event is not UTF-8")
	}
	for _, r := range c.Event {
		if unicode.IsControl(r) {
			return errors.New("event is not one line of text")
		}
	}
	want, err := TextDigest("sha256", c.Event)
	if err != nil {
		return err
	}
	if !bytes.Equal(c.SHA256, want) {
		return fmt.Errorf("digest is not that of the event, want %s", Hex(want))
	}
	return nil
}

// checkChained is for a pod's event without a PCR.
func (r Record) checkChained() error {
	c := r.Content
	switch {
	case len(c.Prev) != 32 || len(c.Next) != 32:
		return errors.New("prev and next must be of 32 bytes")
	case c.Verified || c.Field != "" || c.Value != nil || c.Match != nil:
		return errors.New("an event of the pod has a launch field")
	case len(r.Digests) != 1 || r.Digests[0].HashAlg != "sha256" || !bytes.Equal(r.Digests[0].Digest, c.SHA256):
		return errors.New("digests differ from the content's digest")
	}
	return nil
}

// Head returns the value of the sha256 bank that pod events lead to from zero, whether a PCR holds it or, without one, only the
// chain of the records. It returns [ErrInvalid] when they do not fit together.
func Head(pod []Record) (Hex, error) {
	value := make(Hex, 32)
	for _, r := range pod {
		next, err := Extend("sha256", value, r.Content.SHA256)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(r.Content.Prev, value) || !bytes.Equal(r.Content.Next, next) {
			return nil, fmt.Errorf("%w: record %d goes from %s to %s, the replay from %s to %s",
				ErrInvalid, r.Num, r.Content.Prev, r.Content.Next, value, Hex(next))
		}
		value = next
	}
	return value, nil
}

// tcgSHA256 is the number of SHA-256 (TCG Algorithm Registry).
const tcgSHA256 = 0xb

// evEventTag is the type of an event whose data begin with an id (TCG PC Client Platform Firmware Profile, 10.4.1).
const evEventTag = 6

// TCG2 returns a pod's event as an entry of a crypto-agile log (TCG_PCR_EVENT2) in the form in which the attestation agent writes its
// own: with one digest, that of the sha256 bank. Where the record has no PCR, 0 stands for it.
func TCG2(r Record) []byte {
	var pcr uint32
	if r.PCR != nil {
		pcr = *r.PCR
	}
	entry := binary.LittleEndian.AppendUint32(nil, pcr)
	entry = binary.LittleEndian.AppendUint32(entry, evEventTag)
	entry = binary.LittleEndian.AppendUint32(entry, 1)
	entry = append(binary.LittleEndian.AppendUint16(entry, tcgSHA256), r.Content.SHA256...)
	data := tagged(r.Content.Event)
	entry = binary.LittleEndian.AppendUint32(entry, uint32(len(data)))
	return append(entry, data...)
}
