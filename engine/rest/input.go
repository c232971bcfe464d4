// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/server/types"
	"github.com/open-policy-agent/opa/v1/util"

	"portcullis/engine"
	"portcullis/engine/jsonvalue"
	"portcullis/internal/strictjson"
)

// input is what a request asks about: JSON text that is known to be well-formed. Nil is no input.
type input json.RawMessage

// value is the input for an evaluation, nil for none.
func (in input) value() (ast.Value, error) {
	if in == nil {
		return nil, nil
	}
	v, err := jsonvalue.Read(in)
	if err != nil {
		return nil, malformed("%w", err)
	}
	return v, nil
}

// maxKeyed is how long an input may be for its decision to be remembered, in bytes.
const maxKeyed = 64 << 10

// key is the same for inputs that p cannot tell apart under a rule, such as commands that differ in their exec_id alone: it
// leaves out what the rule does not reach. It is zero for none.
func (in input) key(p *engine.Policy, rule string) [sha256.Size]byte {
	if len(in) > maxKeyed {
		return [sha256.Size]byte{}
	}
	h := sha256.New()
	digest := p.Digest()
	h.Write(digest[:]) // it says what is reached
	ok := in.members(func(name string, member []byte) {
		if p.Reaches(rule, name) {
			var size [8]byte
			binary.BigEndian.PutUint64(size[:], uint64(len(member)))
			h.Write(size[:])
			h.Write(member)
		}
	})
	if !ok {
		return [sha256.Size]byte{}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// members calls f with each member of an object, in order: its name, and its text with the name. It reports false, and may
// have called f, if the input is no object or has a name that is not written in plain ASCII. The text is known to be
// well-formed, so that brackets and quotes are all there is to look at.
func (in input) members(f func(name string, member []byte)) bool {
	text := bytes.TrimRight(in, jsonSpace)
	if len(text) == 0 || text[0] != '{' {
		return false
	}
	depth, quoted, start := 0, false, 1
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		}
		if atEnd := depth == 0; !quoted && (atEnd || depth == 1 && text[i] == ',') {
			if !member(text[start:i], f) {
				return false
			}
			start = i + 1
		}
	}
	return true
}

// jsonSpace is the white space of RFC 8259.
const jsonSpace = " \t\r\n"

// member calls f with one member, or not at all for the nothing in an empty object.
func member(text []byte, f func(string, []byte)) bool {
	text = bytes.Trim(text, jsonSpace)
	if len(text) == 0 {
		return true
	}
	name, _, ok := bytes.Cut(text[1:], []byte{'"'})
	if !ok || text[0] != '"' || bytes.ContainsFunc(name, func(r rune) bool { return r == '\\' || r >= utf8.RuneSelf }) {
		return false
	}
	f(string(name), text)
	return true
}

// readInput reads {"input": ...}, the body of a POST to /v1/data.
func readInput(r *http.Request) (input, error) {
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	text := body
	err = strictjson.Check(text)
	var first json.RawMessage
	if err != nil && json.NewDecoder(bytes.NewReader(body)).Decode(&first) == nil {
		text, err = first, strictjson.Check(first) // as OPA, which reads no further
	}
	if errors.Is(err, strictjson.ErrTwice) {
		return nil, malformed("body contains malformed input document: %w", err)
	}
	if err == nil {
		if in, ok := soleInput(text); ok {
			return in, nil
		}
	}
	var request struct {
		Input json.RawMessage `json:"input"`
	}
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&request); err != nil && !errors.Is(err, io.EOF) {
		return readInputAsOPA(body)
	}
	if string(request.Input) == "null" {
		return nil, nil
	}
	return input(request.Input), nil
}

// soleInput is the input of a well-formed body that agents send: an object with nothing else in it.
func soleInput(body []byte) (input, bool) {
	var found input
	n := 0
	ok := input(body).members(func(name string, member []byte) {
		n++
		if name == "input" {
			value := bytes.TrimLeft(member[len(`"input"`):], jsonSpace)
			found = input(bytes.TrimLeft(value[len(":"):], jsonSpace))
		}
	})
	return found, ok && n == 1 && found != nil && string(found) != "null"
}

// readInputAsOPA reads a body once more, for OPA's own words about what is wrong with it.
func readInputAsOPA(body []byte) (input, error) {
	var request types.DataRequestV1
	if err := util.NewJSONDecoder(bytes.NewReader(body)).Decode(&request); err != nil {
		return nil, malformed("body contains malformed input document: %w", err)
	}
	return nil, malformed("body contains malformed input document: %w", errors.New("not an object with an input"))
}

// readInputV0 reads the body of a POST to /v0/data, which is the input itself.
func readInputV0(r *http.Request) (input, error) {
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	var text json.RawMessage
	switch err := json.NewDecoder(bytes.NewReader(body)).Decode(&text); {
	case errors.Is(err, io.EOF):
		return input("null"), nil
	case err != nil:
		return nil, malformed("unexpected parse error for input: body contains malformed input document: %w", err)
	}
	if err := strictjson.Check(text); err != nil {
		return nil, malformed("body contains malformed input document: %w", err)
	}
	return input(text), nil
}

// readInputParameter reads the input of a GET.
func readInputParameter(r *http.Request) (input, error) {
	if r.URL.RawQuery == "" {
		return nil, nil
	}
	values := r.URL.Query()[types.ParamInputV1]
	if len(values) == 0 {
		return nil, nil
	}
	text := []byte(values[len(values)-1])
	var x any
	err := util.UnmarshalJSON(text, &x)
	if err == nil {
		err = strictjson.Check(text)
	}
	if err != nil {
		return nil, malformed("parameter contains malformed input document: %w", err)
	}
	return input(text), nil
}

// readBody reads a body of JSON. Compressed and YAML bodies, which OPA takes too, are refused.
func readBody(r *http.Request) ([]byte, error) {
	if strings.Contains(r.Header.Get("Content-Encoding"), "gzip") || strings.Contains(r.Header.Get("Content-Type"), "yaml") {
		return nil, failure(http.StatusBadRequest, codeParameter, "only bodies of plain JSON are served here")
	}
	return readAll(r)
}

func readAll(r *http.Request) ([]byte, error) {
	var b bytes.Buffer
	if r.ContentLength > 0 && r.ContentLength <= MaxBody {
		b.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	_, err := b.ReadFrom(r.Body)
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return nil, failure(http.StatusBadRequest, codeParameter, "request body too large: exceeds limit of %d bytes", large.Limit)
	}
	if err != nil {
		return nil, malformed("%w", err)
	}
	return b.Bytes(), nil
}

func malformed(format string, err error) *refusal {
	return failure(http.StatusBadRequest, codeParameter, "%s", fmt.Errorf(format, err).Error())
}
