// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

var inputs = []string{
	`{}`, ` { } `, `{"a":1}`, `{ "a" : [1, {"b": "}"}] , "c":"\"}{,\\" }`, `{"a":{"b":{}},"a":null,"":"x"}`, "{\"a\":1,\n\t\"b\":\"\\\\\"}\n",
	`{"\u0061":1}`, `{"ä":1}`, `{"a\"b":1}`, `[]`, `[{"a":1}]`, `1`, `"{}"`, `null`, `{"a":","}`, `{"a":[],"b":[[],[]],"c":{}}`,
}

// FuzzMembers holds the splitting of an object against encoding/json: the same names with the same values in the same order.
func FuzzMembers(f *testing.F) {
	for _, text := range inputs {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !json.Valid(text) {
			return
		}
		in := input(bytes.TrimSpace(text))
		var got []string
		ok := in.members(func(name string, member []byte) {
			rest := bytes.TrimLeft(member[len(name)+2:], jsonSpace)
			got = append(got, name, string(bytes.Trim(rest[1:], jsonSpace)))
		})
		want, isObject := decoded(t, in)
		if !ok {
			if isObject && !strings.ContainsAny(string(in), `\`) && !bytes.ContainsFunc(in, func(r rune) bool { return r > 127 }) {
				t.Errorf("%q was not split", in)
			}
			return
		}
		if !isObject || !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	})
}

// decoded is an object's names and raw values by encoding/json.
func decoded(t *testing.T, text []byte) (members []string, isObject bool) {
	d := json.NewDecoder(bytes.NewReader(text))
	if first, err := d.Token(); err != nil || first != json.Delim('{') {
		return nil, false
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			t.Fatal(err)
		}
		members = append(members, name.(string), string(raw))
	}
	return members, true
}
