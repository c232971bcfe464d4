// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"bytes"
	"encoding/json"
	"fmt"

	"portcullis/internal/strictjson"
)

// RFC 7464, section 2.2.
const (
	recordStart = 0x1E
	recordEnd   = '\n'
)

// Encode returns the record with its framing. It returns [ErrInvalid] for a record that [Decode] would refuse, except that its
// place in a log is not checked.
func Encode(r Record) ([]byte, error) {
	if err := r.check(int(r.Num)); err != nil {
		return nil, err
	}
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if len(body)+2 > MaxRecordSize {
		return nil, fmt.Errorf("%w: record of %d bytes, the limit is %d", ErrInvalid, len(body)+2, MaxRecordSize)
	}
	return append(append([]byte{recordStart}, body...), recordEnd), nil
}

// Decode parses a whole log, at most [MaxLogSize] bytes. Empty input is an empty log.
func Decode(data []byte) ([]Record, error) {
	records, good, err := DecodePartial(data)
	if err != nil {
		return nil, err
	}
	if good != len(data) {
		return nil, fmt.Errorf("%w: record %d is cut off", ErrInvalid, len(records))
	}
	return records, nil
}

// DecodePartial is [Decode] for a log whose writer may have died while it wrote: a last record without LF is left out. good is
// the number of bytes that hold complete records.
func DecodePartial(data []byte) (records []Record, good int, err error) {
	return decodeMore(nil, 0, data)
}

// decodeMore is [DecodePartial] for data of which the first good bytes are known to hold the given records.
func decodeMore(records []Record, good int, data []byte) ([]Record, int, error) {
	if len(data) > MaxLogSize {
		return nil, 0, fmt.Errorf("%w: more than %d bytes", ErrInvalid, MaxLogSize)
	}
	for rest := data[good:]; len(rest) > 0; {
		if rest[0] != recordStart {
			return nil, 0, fmt.Errorf("%w: record %d begins with byte %#02x, want %#02x", ErrInvalid, len(records), rest[0], recordStart)
		}
		end := bytes.IndexByte(rest, recordEnd)
		if end < 0 {
			if len(rest) > MaxRecordSize {
				return nil, 0, fmt.Errorf("%w: record %d is larger than %d bytes", ErrInvalid, len(records), MaxRecordSize)
			}
			return records, good, nil
		}
		record, err := decodeOne(rest[:end+1], len(records))
		if err != nil {
			return nil, 0, err
		}
		records, rest, good = append(records, record), rest[end+1:], good+end+1
	}
	return records, good, nil
}

// decodeOne parses one framed record and holds it against its canonical form.
func decodeOne(framed []byte, num int) (Record, error) {
	var r Record
	if len(framed) > MaxRecordSize {
		return r, fmt.Errorf("%w: record %d is larger than %d bytes", ErrInvalid, num, MaxRecordSize)
	}
	if err := strictjson.Unmarshal(framed[1:len(framed)-1], &r); err != nil {
		return r, fmt.Errorf("%w: record %d: %w", ErrInvalid, num, err)
	}
	if err := r.check(num); err != nil {
		return r, err
	}
	canonical, err := Encode(r)
	if err != nil {
		return r, err
	}
	if !bytes.Equal(canonical, framed) {
		return r, fmt.Errorf("%w: record %d is not in canonical form", ErrInvalid, num)
	}
	return r, nil
}
