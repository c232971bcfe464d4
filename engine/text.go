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

// Why a text is refused before it is parsed.
var (
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
