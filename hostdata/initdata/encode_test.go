// SPDX-License-Identifier: Apache-2.0

package initdata_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portcullis/hostdata/initdata"
)

var values = map[string]string{
	"empty":                   "",
	"one line":                "value",
	"one line with a quote":   `say "hello" \ 'there'`,
	"policy":                  "package agent_policy\n\ndefault A := {\"b\": `c\\d`}\n",
	"no line end":             "a\nb",
	"only line ends":          "\n\n\n",
	"leading line end":        "\na\n",
	"literal delimiter":       "a\n'''\nb\n",
	"ends in a quote":         "a\nb'",
	"both delimiters":         "a\n'''\n\"\"\"\nb\"",
	"trailing backslash":      "a\\\nb\\\n",
	"carriage returns":        "a\r\nb\rc\n",
	"tabs":                    "\ta\n\tb\n",
	"control characters":      "a\x00b\x1b\x7f\nc\x01\n",
	"byte order mark":         "\ufeffa\n\ufeffb\n",
	"not ASCII":               "é\u2028漢\U0001f600\n",
	"looks like TOML":         "version = '0.1.0'\n[data]\n",
	"unicode escapes":         `\u0041` + "\n" + `\U00000041`,
	"quotes at the beginning": "''\n\"\"\n",
}

func TestNewKeepsEveryByteOfAValue(t *testing.T) {
	for name, value := range values {
		for _, algorithm := range []initdata.Algorithm{initdata.SHA256, initdata.SHA384, initdata.SHA512} {
			doc, err := initdata.New(algorithm, map[string]string{"key": value})
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if got, _ := mustParse(t, string(doc.Bytes())).Value("key"); got != value {
				t.Errorf("%s: %q became %q", name, value, got)
			}
			if doc.Algorithm() != algorithm {
				t.Errorf("%s: algorithm %q", name, doc.Algorithm())
			}
		}
	}
	all, err := initdata.New(initdata.SHA256, values)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(all.Keys(), slices.Sorted(maps.Keys(values))) {
		t.Errorf("keys %q", all.Keys())
	}
}

func TestNewIsReadableAndDeterministic(t *testing.T) {
	data := map[string]string{
		initdata.PolicyKey: "package agent_policy\n\ndefault A := false\n",
		initdata.AAKey:     "[token_configs]\n",
		"x":                "a 'b'",
	}
	want := `version = "0.1.0"
algorithm = "sha256"

[data]
"aa.toml" = '''
[token_configs]
'''
"policy.rego" = '''
package agent_policy

default A := false
'''
"x" = "a 'b'"
`
	for range 20 {
		doc, err := initdata.New(initdata.SHA256, data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(doc.Bytes())); diff != "" {
			t.Fatal(diff)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	tests := map[string]struct {
		algorithm initdata.Algorithm
		data      map[string]string
	}{
		"unknown algorithm": {"sha1", nil},
		"no algorithm":      {"", nil},
		"value not UTF-8":   {initdata.SHA256, map[string]string{"a": "\xff"}},
		"key not UTF-8":     {initdata.SHA256, map[string]string{"\xff": "a"}},
		"too long":          {initdata.SHA256, map[string]string{"a": strings.Repeat("x", initdata.MaxDocument)}},
	}
	for name, tt := range tests {
		if _, err := initdata.New(tt.algorithm, tt.data); !errors.Is(err, initdata.ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// shim decodes an annotation as the runtime does: standard base64, gzip, all of it.
func shim(t testing.TB, annotation string) []byte {
	t.Helper()
	compressed, err := base64.StdEncoding.DecodeString(annotation)
	if err != nil {
		t.Fatal(err)
	}
	zr, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(zr)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestAnnotationIsWhatTheShimDecodes(t *testing.T) {
	doc, err := initdata.New(initdata.SHA384, values)
	if err != nil {
		t.Fatal(err)
	}
	annotation, err := doc.Annotation()
	if err != nil {
		t.Fatal(err)
	}
	decoded := mustParse(t, string(shim(t, annotation)))
	if !bytes.Equal(decoded.Digest(), doc.Digest()) {
		t.Error("the shim's digest is another")
	}
	ours, err := initdata.ParseAnnotation(annotation)
	if err != nil || !bytes.Equal(ours.Digest(), doc.Digest()) {
		t.Errorf("document %v, error %v", ours, err)
	}
	if again, _ := doc.Annotation(); again != annotation {
		t.Error("two annotations of one document")
	}
}

// The annotations were made by gzip and base64.
func TestParseAnnotationOfOtherTools(t *testing.T) {
	for _, name := range golden(t) {
		doc, err := initdata.ParseAnnotation(string(readFile(t, name+".annotation")))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(doc.Bytes(), readFile(t, name+".toml")) {
			t.Errorf("%s: other bytes", name)
		}
	}
}

func compress(t testing.TB, text []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	zw := gzip.NewWriter(&out)
	if _, err := zw.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestParseAnnotationRefuses(t *testing.T) {
	encode := base64.StdEncoding.EncodeToString
	text := []byte(header + "[data]\n")
	good := compress(t, text)
	damaged := slices.Clone(good)
	damaged[len(damaged)-5] ^= 1 // in the checksum
	annotation := encode(good)
	tests := map[string]string{
		"empty":               "",
		"not base64":          "%%%",
		"line break":          annotation[:20] + "\n" + annotation[20:],
		"trailing line break": annotation + "\n",
		"URL alphabet":        "-_-_",
		"not compressed":      encode(text),
		"gzip cut off":        encode(good[:len(good)-4]),
		"checksum wrong":      encode(damaged),
		"trailing bytes":      encode(append(slices.Clone(good), 0)),
		"second member":       encode(append(slices.Clone(good), good...)),
		"second empty member": encode(append(slices.Clone(good), compress(t, nil)...)),
		"bomb":                encode(compress(t, make([]byte, 2*initdata.MaxDocument))),
		"too long":            encode(make([]byte, 1<<20+1)),
		"not initdata":        encode(compress(t, []byte("a = 1\n"))),
		"policy":              initdata.EncodePolicy([]byte("package agent_policy\n")),
	}
	for name, value := range tests {
		if _, err := initdata.ParseAnnotation(value); !errors.Is(err, initdata.ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestPolicyAnnotation(t *testing.T) {
	for _, policy := range []string{"package agent_policy\n", "package agent_policy", "a\r\n", "\ufeffa", "\x00", ""} {
		got, err := initdata.ParsePolicy(initdata.EncodePolicy([]byte(policy)))
		if err != nil || string(got) != policy {
			t.Errorf("%q became %q, %v", policy, got, err)
		}
	}
	for name, value := range map[string]string{"not base64": "package", "line break": "YWJj\nYWJj", "no padding": "YQ", "bits behind the end": "YR=="} {
		if _, err := initdata.ParsePolicy(value); !errors.Is(err, initdata.ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
