// SPDX-License-Identifier: Apache-2.0

// Package strictjson reads JSON as encoding/json does, and refuses an object that has two members of one name: of such a text
// one reader takes the first and another the last, so that what is judged is not what is done.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

// ErrTwice says that an object has two members of one name.
var ErrTwice = errors.New("a key is there twice")

// Unmarshal is [json.Unmarshal].
func Unmarshal(text []byte, into any) error { return decode(text, into, func(*json.Decoder) {}) }

// Known is [Unmarshal] that takes no member that into has no field for.
func Known(text []byte, into any) error {
	return decode(text, into, (*json.Decoder).DisallowUnknownFields)
}

// Tree is [Unmarshal] with numbers as they are written, of type [json.Number], where into leaves their type open.
func Tree(text []byte, into any) error { return decode(text, into, (*json.Decoder).UseNumber) }

func decode(text []byte, into any, set func(*json.Decoder)) error {
	if err := Check(text); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	set(d)
	return d.Decode(into)
}

// Check holds that text is one JSON value, in which no object has two members of one name.
func Check(text []byte) error {
	if !json.Valid(text) {
		return json.Unmarshal(text, new(json.RawMessage)) // which says what is wrong
	}
	var open []names
	for at := 0; at < len(text); at++ {
		switch text[at] {
		case '{', '[':
			open = append(open, names{})
		case '}', ']':
			open = open[:len(open)-1]
		case '"':
			quoted := literal(text[at:])
			at += len(quoted) - 1
			if rest := bytes.TrimLeft(text[at+1:], " \t\r\n"); len(rest) == 0 || rest[0] != ':' {
				continue // a value
			}
			if name := unquoted(quoted); !open[len(open)-1].add(name) {
				return fmt.Errorf("%w: %.100q", ErrTwice, name)
			}
		}
	}
	return nil
}

// names are those of an object's members.
type names struct {
	few  [][]byte
	many map[string]bool
}

// mostCompared is how many names each new one is compared with.
const mostCompared = 16

// add is false for a name that is there.
func (n *names) add(name []byte) bool {
	if n.many == nil && len(n.few) < mostCompared {
		twice := slices.ContainsFunc(n.few, func(had []byte) bool { return bytes.Equal(had, name) })
		n.few = append(n.few, name)
		return !twice
	}
	if n.many == nil {
		n.many = map[string]bool{}
		for _, had := range n.few {
			n.many[string(had)] = true
		}
	}
	twice := n.many[string(name)]
	n.many[string(name)] = true
	return !twice
}

// literal is the string that text begins with, in its quotes.
func literal(text []byte) []byte {
	end := 1
	for ; text[end] != '"'; end++ {
		if text[end] == '\\' {
			end++
		}
	}
	return text[:end+1]
}

func unquoted(literal []byte) []byte {
	if !bytes.ContainsFunc(literal, func(r rune) bool { return r == '\\' || r >= utf8.RuneSelf }) {
		return literal[1 : len(literal)-1]
	}
	var s string
	_ = json.Unmarshal(literal, &s) // it is well-formed
	return []byte(s)
}
