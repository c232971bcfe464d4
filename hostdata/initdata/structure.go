// SPDX-License-Identifier: Apache-2.0

package initdata

import (
	"bytes"
	"fmt"
)

// maxStructure bounds the bytes that build structure in a document. Three keys and a table of strings need few; the parser's time
// grows with their square and its stack with their depth (128 KiB of "a." took it 20 s).
const maxStructure = 128

// checkStructure refuses a document with more than maxStructure of the bytes [ { . = outside strings and comments, and one whose
// strings do not end. It knows no more of TOML than where strings and comments are.
func checkStructure(text []byte) error {
	count := 0
	for i := 0; i < len(text); {
		switch c := text[i]; c {
		case '#':
			end := bytes.IndexByte(text[i:], '\n')
			if end < 0 {
				return nil
			}
			i += end
		case '"', '\'':
			end := stringEnd(text[i:])
			if end < 0 {
				return fmt.Errorf("a string does not end")
			}
			i += end
		case '[', '{', '.', '=':
			if count++; count > maxStructure {
				return fmt.Errorf("too many keys or tables")
			}
			i++
		default:
			i++
		}
	}
	return nil
}

// stringEnd returns the length of the TOML string that text begins with, quotes included, or -1.
func stringEnd(text []byte) int {
	quote := text[0]
	multi := bytes.Repeat(text[:1], 3)
	if !bytes.HasPrefix(text, multi) {
		return closing(text, 1, text[:1])
	}
	end := closing(text, 3, multi)
	// Up to two quotes may stand directly before the closing three.
	for extra := 0; extra < 2 && end > 0 && end < len(text) && text[end] == quote; extra++ {
		end++
	}
	return end
}

// closing returns the index behind the first delimiter at or after from, -1 when there is none. Only double-quoted strings know
// escapes, only triple-quoted ones line ends.
func closing(text []byte, from int, delimiter []byte) int {
	for i := from; i < len(text); i++ {
		switch {
		case text[i] == '\\' && delimiter[0] == '"':
			i++
		case text[i] == '\n' && len(delimiter) == 1:
			return -1
		case bytes.HasPrefix(text[i:], delimiter):
			return i + len(delimiter)
		}
	}
	return -1
}
