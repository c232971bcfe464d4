// SPDX-License-Identifier: Apache-2.0

package strictjson_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	jsonv2 "github.com/go-json-experiment/json"

	"portcullis/internal/strictjson"
)

func TestAKeyTwiceIsRefusedHoweverItIsWritten(t *testing.T) {
	for text, twice := range map[string]bool{
		`{"a":1,"a":1}`: true, `{"a":1, "\u0061" :2}`: true, `[{"a":[{"b":1,"c":2,"b":3}]}]`: true, `{"":1,"":2}`: true,
		"{\"ä\":1,\"\\u00e4\":2}": true, "{\"\xff\":1,\"\xfe\":2}": true, `{"a":{},"b":[],"a":0}`: true, `{"\"":1,"\"":2}`: true,
		`{"a":1,"A":2}`: false, `{"a":{"a":{"a":1}},"b":["a","a"]}`: false, `[{"a":1},{"a":2}]`: false, `{"a":"\"a\":"}`: false, `{}`: false,
		`"a"`: false, `[]`: false, ` null `: false, `{"a":"a","b":"a"}`: false, `{"\\":1,"\\\\":2}`: false, `["{\"a\":1,\"a\":2}"]`: false,
	} {
		if err := strictjson.Check([]byte(text)); errors.Is(err, strictjson.ErrTwice) != twice || !twice && err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	var long strings.Builder
	for i := range 40 {
		fmt.Fprintf(&long, "\"%d\":0,", i)
	}
	for _, last := range []int{0, 20, 39} {
		if err := strictjson.Check(fmt.Appendf(nil, "{%s\"%d\":1}", long.String(), last)); !errors.Is(err, strictjson.ErrTwice) {
			t.Errorf("the name %d of many: %v", last, err)
		}
	}
	for _, text := range []string{``, `{`, `{"a":1}{"a":1}`, `{"a"}`, `nul`, strings.Repeat("[", 20000)} {
		var into any
		if err := strictjson.Unmarshal([]byte(text), &into); err == nil || errors.Is(err, strictjson.ErrTwice) {
			t.Errorf("%.20s: %v", text, err)
		}
	}
}

func TestTheReadersDifferInWhatTheySay(t *testing.T) {
	var tree map[string]any
	if err := strictjson.Tree([]byte(`{"n":1.50}`), &tree); err != nil || tree["n"] != json.Number("1.50") {
		t.Errorf("%v (%v)", tree, err)
	}
	var known struct {
		N float64 `json:"n"`
	}
	if err := strictjson.Known([]byte(`{"n":1,"m":2}`), &known); err == nil {
		t.Error("a member without a field is taken")
	}
	if err := strictjson.Unmarshal([]byte(`{"n":1,"m":2}`), &known); err != nil || known.N != 1 {
		t.Errorf("%v (%v)", known, err)
	}
}

// FuzzCheck compares with a reader of another hand, which refuses a name twice and bytes that are no UTF-8.
func FuzzCheck(f *testing.F) {
	for _, seed := range []string{`{"a":1,"a":2}`, `[{"b":[],"\u0062":{}}]`, `{"x":{"y":null}}`, ` {"a" : "b\"" , "a\"":1}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var want, got any
		err := strictjson.Unmarshal([]byte(text), &got)
		other := jsonv2.Unmarshal([]byte(text), &want)
		if other == nil && (err != nil || !reflect.DeepEqual(got, want)) {
			t.Errorf("%q: %v, and the other reader gives %v", text, err, want)
		}
		if err == nil && other != nil && strings.Contains(other.Error(), "duplicate") {
			t.Errorf("%q: %v", text, other)
		}
	})
}
