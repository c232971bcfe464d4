package rest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/server/types"
	"github.com/open-policy-agent/opa/v1/util"
)

// input is what a request asks about.
type input struct {
	value ast.Value         // nil: no input
	key   [sha256.Size]byte // of the text that value was read from; zero: none
}

// readInput reads {"input": ...}, the body of a POST to /v1/data.
func readInput(r *http.Request) (input, error) {
	body, err := readBody(r)
	if err != nil {
		return input{}, err
	}
	var request types.DataRequestV1
	if err := util.NewJSONDecoder(bytes.NewReader(body)).Decode(&request); err != nil && !errors.Is(err, io.EOF) {
		return input{}, malformed("body contains malformed input document: %w", err)
	}
	if request.Input == nil {
		return input{}, nil
	}
	return newInput(*request.Input, "v1", body)
}

// readInputV0 reads the body of a POST to /v0/data, which is the input itself.
func readInputV0(r *http.Request) (input, error) {
	body, err := readBody(r)
	if err != nil {
		return input{}, err
	}
	var x any
	if err := util.NewJSONDecoder(bytes.NewReader(body)).Decode(&x); err != nil && !errors.Is(err, io.EOF) {
		return input{}, malformed("unexpected parse error for input: body contains malformed input document: %w", err)
	}
	return newInput(x, "v0", body)
}

// readInputParameter reads the input of a GET.
func readInputParameter(r *http.Request) (input, error) {
	if r.URL.RawQuery == "" {
		return input{}, nil
	}
	values := r.URL.Query()[types.ParamInputV1]
	if len(values) == 0 {
		return input{}, nil
	}
	text := []byte(values[len(values)-1])
	var x any
	if err := util.UnmarshalJSON(text, &x); err != nil {
		return input{}, malformed("parameter contains malformed input document: %w", err)
	}
	return newInput(x, "get", text)
}

// newInput keeps forms of request apart: one text may mean different inputs in them.
func newInput(x any, form string, text []byte) (input, error) {
	v, err := ast.InterfaceToValue(x)
	if err != nil {
		return input{}, malformed("%w", err)
	}
	in := input{value: v}
	h := sha256.New()
	fmt.Fprintf(h, "%s\n", form)
	h.Write(text)
	h.Sum(in.key[:0])
	return in, nil
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
