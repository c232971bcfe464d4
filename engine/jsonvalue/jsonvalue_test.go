// SPDX-License-Identifier: Apache-2.0

package jsonvalue_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/util"

	"portcullis/engine/jsonvalue"
)

// FuzzRead holds the reading against encoding/json and OPA: the same value, or an error from both. What is read strictly is the
// same again.
func FuzzRead(f *testing.F) {
	for _, text := range []string{`{}`, ` { } `, `{ "a" : [1, {"b": "}"}] , "c":"\"}{,\\" }`, `{"a":1,"\u0061":2}`, `1`, `null`, `{`, `[1] 2`, ` [ 1 , -2.5e3,0, 9007199254740993 ]`, `{"a":1,"b":2,"a":[3]}`, `"\ud800\u00e4\"ä"`, "\"\xff\"", `1e999999999`, `{"a":[[],{}],"":true}`,
		`{` + strings.Repeat(`"a":1,"b":[false],`, 12) + `"c":null}`, strings.Repeat("[", 300) + strings.Repeat("]", 300)} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		strict, strictErr := jsonvalue.ReadStrict(text)
		if !json.Valid(text) {
			if strictErr == nil {
				t.Fatalf("%q is read", text)
			}
			return
		}
		got, err := jsonvalue.Read(text)
		want, wantErr := decodedByOPA(text)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: got error %v, want %v", text, err, wantErr)
		}
		if err == nil && (ast.Compare(got, want) != 0 || got.Hash() != want.Hash() || got.String() != want.String()) {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
		if strictErr == nil && (err != nil || ast.Compare(strict, got) != 0) {
			t.Errorf("%q: read strictly %v, else %v (%v)", text, strict, got, err)
		}
	})
}

func TestReadStrictRefuses(t *testing.T) {
	deep := strings.Repeat("[", jsonvalue.MaxDepth)
	for text, want := range map[string]error{
		``: jsonvalue.ErrSyntax, `{"a":1} {}`: jsonvalue.ErrSyntax, `{"a":1,}`: jsonvalue.ErrSyntax, "\ufeff{}": jsonvalue.ErrSyntax,
		`{"a":1,"a":1}`: jsonvalue.ErrDuplicate, `[{"a":{"b":1,"c":2,"\u0062":3}}]`: jsonvalue.ErrDuplicate,
		deep + "[]" + strings.ReplaceAll(deep, "[", "]"): jsonvalue.ErrDepth,
	} {
		if _, err := jsonvalue.ReadStrict([]byte(text)); !errors.Is(err, want) {
			t.Errorf("%.40q: error is %v, want %v", text, err, want)
		}
	}
	if _, err := jsonvalue.ReadStrict([]byte(deep + strings.ReplaceAll(deep, "[", "]"))); err != nil {
		t.Errorf("nesting up to the limit: %v", err)
	}
}

func decodedByOPA(text []byte) (ast.Value, error) {
	var x any
	if err := util.NewJSONDecoder(bytes.NewReader(text)).Decode(&x); err != nil {
		return nil, err
	}
	return ast.InterfaceToValue(x)
}

func BenchmarkRead(b *testing.B) {
	text := []byte(`{"container_id":"1","exec_id":"e","stdin_port":null,"process":{"Args":["/bin/probe","--live"],"Cwd":"/",
		"Env":["PATH=/bin","HOSTNAME=pod"],"Terminal":false,"User":{"UID":0,"GID":0}}}`)
	for name, read := range map[string]func([]byte) (ast.Value, error){
		"ours": jsonvalue.Read,
		"OPA":  decodedByOPA,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := read(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
