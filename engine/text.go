// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"
)

// MaxText is the longest policy text, in bytes, that [Compiler.Compile] accepts.
const MaxText = 2 << 20

// MaxWords is how many words, numbers and signs a policy may have outside its policy_data: each takes up to a kilobyte while it is
// compiled. The shipped rules have 13,000, upstream's fewer than 20,000.
const MaxWords = 24_000

// Why a text is refused before it is parsed.
var (
	ErrTextWords    = fmt.Errorf("policy has more than %d words and signs outside its policy_data", MaxWords)
	ErrTextEmpty    = errors.New("policy text is empty")
	ErrTextTooLarge = fmt.Errorf("policy text is longer than %d bytes", MaxText)
	ErrTextEncoding = errors.New("policy text is not valid UTF-8")
	ErrTextNUL      = errors.New("policy text contains a NUL byte")
	ErrTextBOM      = errors.New("policy text begins with a byte order mark")
)

// CheckText says whether text is within the bounds of a policy text. It is nil or one of the ErrText sentinels.
func CheckText(text []byte) error {
	switch {
	case len(text) == 0:
		return ErrTextEmpty
	case len(text) > MaxText:
		return ErrTextTooLarge
	case bytes.HasPrefix(text, []byte("\xef\xbb\xbf")):
		return ErrTextBOM
	case !utf8.Valid(text):
		return ErrTextEncoding
	case bytes.IndexByte(text, 0) >= 0:
		return ErrTextNUL
	}
	return nil
}

// words counts what a parser makes a node of: names, numbers, signs.
func words(text []byte) int {
	n, inside := 0, false
	for _, c := range text {
		switch {
		case c <= ' ':
			inside = false
		case !isWordByte(c):
			n, inside = n+1, false
		case !inside:
			n, inside = n+1, true
		}
	}
	return n
}

func isWordByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}
