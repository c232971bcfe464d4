// SPDX-License-Identifier: Apache-2.0

// Package jsonvalue makes values of OPA's evaluator of JSON text, as encoding/json and [ast.InterfaceToValue] would, but without
// the Go values in between, which takes half the time.
package jsonvalue

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
)

// MaxDepth is how deeply arrays and objects may lie in each other for ReadStrict.
const MaxDepth = 256

// Why ReadStrict refuses a text.
var (
	ErrSyntax    = errors.New("not one JSON value")
	ErrDuplicate = errors.New("an object has two members of one name")
	ErrDepth     = errors.New("arrays and objects lie too deeply in each other")
)

// Read reads text, which must be well-formed: see [json.Valid]. Of two members of one name the last counts. Its only error is a
// number that is out of range.
func Read(text []byte) (ast.Value, error) {
	return (&reader{text: text}).value()
}

// ReadStrict reads text that may be anything. It refuses what is not one JSON value, two members of one name, on which readers of
// JSON disagree, nesting beyond MaxDepth, and a number that is out of range.
func ReadStrict(text []byte) (ast.Value, error) {
	if !json.Valid(text) {
		return nil, ErrSyntax
	}
	return (&reader{text: text, strict: true}).value()
}

// reader reads well-formed text.
type reader struct {
	text   []byte
	at     int
	stack  []ast.Value // what has been read of the arrays and objects around
	strict bool
	depth  int
}

// value reads what begins here.
func (r *reader) value() (ast.Value, error) {
	switch r.next() {
	case '{':
		return r.nested((*reader).object)
	case '[':
		return r.nested((*reader).array)
	case '"':
		return r.string(), nil
	case 't':
		r.at += len("true")
		return ast.InternedValue(true), nil
	case 'f':
		r.at += len("false")
		return ast.InternedValue(false), nil
	case 'n':
		r.at += len("null")
		return ast.InternedNullValue, nil
	}
	return r.number()
}

func (r *reader) nested(read func(*reader) (ast.Value, error)) (ast.Value, error) {
	if r.depth++; r.strict && r.depth > MaxDepth {
		return nil, ErrDepth
	}
	v, err := read(r)
	r.depth--
	return v, err
}

// next is the first byte that is no white space.
func (r *reader) next() byte {
	for {
		switch c := r.text[r.at]; c {
		case ' ', '\t', '\r', '\n':
			r.at++
		default:
			return c
		}
	}
}

// more steps over the bracket or comma before an element, and says whether there is one before the closing bracket.
func (r *reader) more(closing byte) bool {
	r.at++
	if r.next() != closing {
		return true
	}
	r.at++
	return false
}

func (r *reader) array() (ast.Value, error) {
	base := len(r.stack)
	for r.more(']') {
		v, err := r.value()
		if err != nil {
			return nil, err
		}
		r.stack = append(r.stack, v)
		if r.next() == ']' {
			r.at++
			break
		}
	}
	terms := r.pop(base)
	if len(terms) == 0 {
		return ast.InternedEmptyArrayValue, nil
	}
	elements := make([]*ast.Term, len(terms))
	for i := range terms {
		elements[i] = &terms[i]
	}
	return ast.NewArray(elements...), nil
}

func (r *reader) object() (ast.Value, error) {
	base := len(r.stack)
	for r.more('}') {
		name := r.string()
		r.next()
		r.at++ // the colon
		v, err := r.value()
		if err != nil {
			return nil, err
		}
		r.stack = append(r.stack, name, v)
		if r.next() == '}' {
			r.at++
			break
		}
	}
	terms := r.pop(base)
	if len(terms) == 0 {
		return ast.InternedEmptyObjectValue, nil
	}
	obj := ast.NewObjectWithCapacity(len(terms) / 2)
	for i := 0; i < len(terms); i += 2 {
		obj.Insert(&terms[i], &terms[i+1]) // of two with one name the last counts
	}
	if r.strict && obj.Len() < len(terms)/2 {
		return nil, ErrDuplicate
	}
	return obj, nil
}

// pop takes off the stack what lies above base, as terms of one allocation.
func (r *reader) pop(base int) []ast.Term {
	terms := make([]ast.Term, len(r.stack)-base)
	for i, v := range r.stack[base:] {
		terms[i].Value = v
	}
	r.stack = r.stack[:base]
	return terms
}

// string reads a string. It is a copy: a state that keeps it must not keep the whole request.
func (r *reader) string() ast.Value {
	start := r.at
	plain := true
	for r.at++; r.text[r.at] != '"'; r.at++ {
		switch c := r.text[r.at]; {
		case c == '\\':
			r.at++
			plain = false
		case c >= utf8.RuneSelf:
			plain = false
		}
	}
	r.at++
	if plain {
		return ast.String(r.text[start+1 : r.at-1])
	}
	var s string
	_ = json.Unmarshal(r.text[start:r.at], &s) // it is well-formed
	return ast.String(s)
}

func (r *reader) number() (ast.Value, error) {
	n := bytes.IndexAny(r.text[r.at:], ",]} \t\r\n")
	if n < 0 {
		n = len(r.text) - r.at
	}
	text := string(r.text[r.at : r.at+n])
	r.at += n
	if t := ast.InternedIntNumberTermFromString(text); t != nil {
		return t.Value, nil
	}
	return ast.NumberChecked(text)
}
