// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"bytes"
	"encoding/binary"
	"unicode/utf16"
)

// decodeText returns a file's text in UTF-8 as kubectl reads it: the byte order mark at its start, if there is one, says
// what the text is in and is no part of it. The Finding, where it is not nil, says that the text was in UTF-16; it is an
// error where there is no mark to go by.
func decodeText(file string, text []byte) ([]byte, *Finding, error) {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(text, []byte{0xEF, 0xBB, 0xBF}):
		return text, nil, nil // the YAML library passes over it, and it stays
	case bytes.HasPrefix(text, []byte{0xFF, 0xFE}):
		order = binary.LittleEndian
	case bytes.HasPrefix(text, []byte{0xFE, 0xFF}):
		order = binary.BigEndian
	case len(text) > 1 && (text[0] == 0) != (text[1] == 0):
		return nil, nil, &Finding{File: file, Text: "is UTF-16 without a byte order mark; save it as UTF-8"}
	default:
		return text, nil, nil
	}
	if len(text)%2 != 0 {
		return nil, nil, &Finding{File: file, Text: "is UTF-16 that ends in the middle of a character; save it as UTF-8"}
	}
	units := make([]uint16, len(text)/2-1)
	for i := range units {
		units[i] = order.Uint16(text[2*i+2:])
	}
	return []byte(string(utf16.Decode(units))), &Finding{File: file, Text: "is UTF-16; it was read so, and what is written is UTF-8"}, nil
}
