// SPDX-License-Identifier: Apache-2.0

package engine

import "bytes"

// joinPrints moves the spaces between print and its parenthesis behind that: kata-agent's engine takes "print (x)", which rules of
// Kata 3.12 to 3.17 have, and OPA's parser does not. Nothing else changes, and no line or column beyond them. Strings and comments
// stay as they are.
func joinPrints(text []byte) []byte {
	if !bytes.Contains(text, []byte("print ")) && !bytes.Contains(text, []byte("print\t")) {
		return text
	}
	out := bytes.Clone(text)
	for i := 0; i < len(out); {
		switch c := out[i]; {
		case c == '"' || c == '`' || c == '#':
			i += skipped(out[i:])
		case isWord(c):
			end := i
			for end < len(out) && isWord(out[end]) {
				end++
			}
			if string(out[i:end]) == "print" {
				joinCall(out[end:])
			}
			i = end
		default:
			i++
		}
	}
	return out
}

// joinCall swaps the blanks at the beginning of rest with the parenthesis that follows them, if one does.
func joinCall(rest []byte) {
	at := 0
	for at < len(rest) && (rest[at] == ' ' || rest[at] == '\t') {
		at++
	}
	if at > 0 && at < len(rest) && rest[at] == '(' {
		rest[0], rest[at] = '(', rest[0]
	}
}

// skipped is how long the string or comment is that rest begins with.
func skipped(rest []byte) int {
	for i := 1; i < len(rest); i++ {
		switch {
		case rest[0] == '#' && rest[i] == '\n', rest[0] == '`' && rest[i] == '`', rest[0] == '"' && (rest[i] == '"' || rest[i] == '\n'):
			return i + 1
		case rest[0] == '"' && rest[i] == '\\':
			i++
		}
	}
	return len(rest)
}

// isWord says whether c can be part of a name, or of a reference in front of one.
func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.'
}
