package rest

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/util"
)

// FuzzValue holds the reading of an input against encoding/json and OPA: the same value, or an error from both.
func FuzzValue(f *testing.F) {
	for _, text := range append(inputs, ` [ 1 , -2.5e3,0, 9007199254740993 ]`, `{"a":1,"b":2,"a":[3]}`, `"\ud800\u00e4\"ä"`, "\"\xff\"", `1e999999999`, `{"a":[[],{}],"":true}`,
		`{`+strings.Repeat(`"a":1,"b":[false],`, 12)+`"c":null}`, strings.Repeat("[", 200)+strings.Repeat("]", 200)) {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !json.Valid(text) {
			return
		}
		got, err := input(text).value()
		want, wantErr := decodedByOPA(text)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: got error %v, want %v", text, err, wantErr)
		}
		if err == nil && (ast.Compare(got, want) != 0 || got.Hash() != want.Hash() || got.String() != want.String()) {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	})
}

func decodedByOPA(text []byte) (ast.Value, error) {
	var x any
	if err := util.NewJSONDecoder(bytes.NewReader(text)).Decode(&x); err != nil {
		return nil, err
	}
	return ast.InterfaceToValue(x)
}

func BenchmarkValue(b *testing.B) {
	text := []byte(`{"container_id":"1","exec_id":"e","stdin_port":null,"process":{"Args":["/bin/probe","--live"],"Cwd":"/",
		"Env":["PATH=/bin","HOSTNAME=pod"],"Terminal":false,"User":{"UID":0,"GID":0}}}`)
	for name, read := range map[string]func([]byte) (ast.Value, error){
		"ours": func(text []byte) (ast.Value, error) { return input(text).value() },
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
