package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine/jsonvalue"
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

var (
	compactHeader = regexp.MustCompile(`^package agent_policy\n+rules := "sha256:([0-9a-f]{64})"\n+policy_data := `)
	dataRule      = []byte("policy_data := ")
)

// parts is a policy text taken apart.
type parts struct {
	rules  []byte            // full form: the bytes before policy_data
	digest [sha256.Size]byte // SHA-256 of the rules, as computed (full form) or as stated (compact form)
	data   ast.Value         // policy_data
}

// splitCompact recognises the compact form, strictly: a text that only resembles it is a full text.
func splitCompact(text []byte) (parts, bool) {
	m := compactHeader.FindSubmatchIndex(text)
	if m == nil {
		return parts{}, false
	}
	data, err := jsonvalue.ReadStrict(text[m[1]:])
	if err != nil {
		return parts{}, false
	}
	p := parts{data: data}
	_, err = hex.Decode(p.digest[:], text[m[2]:m[3]])
	return p, err == nil
}

// splitFull takes off a policy_data rule that ends the text and whose value is JSON. The caller must see that what precedes
// it parses on its own, since only then is the last rule sure to be one.
func splitFull(text []byte) (parts, bool) {
	i := bytes.LastIndex(text, append([]byte{'\n'}, dataRule...))
	if i < 0 {
		return parts{}, false
	}
	data, err := jsonvalue.ReadStrict(text[i+1+len(dataRule):])
	if err != nil {
		return parts{}, false
	}
	rules := text[:i+1]
	return parts{rules: rules, digest: sha256.Sum256(rules), data: data}, true
}
