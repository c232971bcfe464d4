// SPDX-License-Identifier: Apache-2.0

package initdata_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/hostdata"
	"portcullis/hostdata/initdata"
)

const header = "version = \"0.1.0\"\nalgorithm = \"sha256\"\n"

func mustParse(t testing.TB, text string) *initdata.Document {
	t.Helper()
	doc, err := initdata.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// golden returns the names of the documents in testdata; none is a failure.
func golden(t testing.TB) []string {
	t.Helper()
	docs, err := filepath.Glob("testdata/*.toml")
	if err != nil || len(docs) == 0 {
		t.Fatalf("no documents in testdata: %v", err)
	}
	for i := range docs {
		docs[i] = strings.TrimSuffix(docs[i], ".toml")
	}
	return docs
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// The digests were made by coreutils.
func TestDigestIsOverTheExactBytes(t *testing.T) {
	for _, name := range golden(t) {
		doc := mustParse(t, string(readFile(t, name+".toml")))
		want := ""
		for line := range strings.Lines(string(readFile(t, name+".digests"))) {
			if algorithm, digest, _ := strings.Cut(strings.TrimSpace(line), " "); algorithm == string(doc.Algorithm()) {
				want = digest
			}
		}
		if got := hex.EncodeToString(doc.Digest()); got != want {
			t.Errorf("%s: digest %s, want %s", name, got, want)
		}
	}
}

func TestParseKeepsEveryByteOfAValue(t *testing.T) {
	doc := mustParse(t, string(readFile(t, "testdata/full.toml")))
	want := map[string]string{
		initdata.AAKey:     "[token_configs]\n[token_configs.kbs]\nurl = \"http://127.0.0.1:8080\"\n",
		initdata.CDHKey:    "socket = 'unix:///run/confidential-containers/cdh.sock'\ncredentials = []\n",
		initdata.PolicyKey: "package agent_policy\n\nimport future.keywords.in\n\ndefault CreateContainerRequest := false\ndefault SetPolicyRequest := true\n",
		"other/../name":    "kept, never a path",
	}
	if got := doc.Keys(); len(got) != len(want) {
		t.Errorf("keys %q", got)
	}
	for key, text := range want {
		if got, ok := doc.Value(key); !ok || got != text {
			t.Errorf("%s is %q, want %q", key, got, text)
		}
	}
	if _, ok := doc.Value("none"); ok {
		t.Error("a value for a key that is not there")
	}
}

func TestParse(t *testing.T) {
	deep := func(s string, n int) string { return strings.Repeat(s, n) }
	tests := []struct {
		name string
		text string
		ok   bool
	}{
		{"no data", header + "[data]\n", true},
		{"inline table", header + "data = {}\n", true},
		{"dotted keys", header + "data.a = \"b\"\n", true},
		{"no line end at the end", header + "[data]", true},
		{"empty value", header + "[data]\na = \"\"\n", true},
		{"escaped carriage return", header + `data = {a = "\r\n"}`, true},
		{"byte order mark inside a value", header + "data = {a = \"\ufeff\"}", true},

		{"empty", "", false},
		{"only comments", "# version = \"0.1.0\"\n", false},
		{"no version", "algorithm = \"sha256\"\n[data]\n", false},
		{"other version", "version = \"0.2.0\"\nalgorithm = \"sha256\"\n[data]\n", false},
		{"version as a number", "version = 0.1\nalgorithm = \"sha256\"\n[data]\n", false},
		{"no algorithm", "version = \"0.1.0\"\n[data]\n", false},
		{"algorithm with a dash", "version = \"0.1.0\"\nalgorithm = \"sha-256\"\n[data]\n", false},
		{"algorithm in capitals", "version = \"0.1.0\"\nalgorithm = \"SHA256\"\n[data]\n", false},
		{"weak algorithm", "version = \"0.1.0\"\nalgorithm = \"sha1\"\n[data]\n", false},
		{"no data table", header, false},
		{"data as a string", header + "data = \"x\"\n", false},
		{"data as an array of tables", header + "[[data]]\n", false},
		{"number in data", header + "[data]\na = 1\n", false},
		{"table in data", header + "[data.a]\nb = \"c\"\n", false},
		{"unknown key", "extra = \"x\"\n" + header + "[data]\n", false},
		{"unknown table", header + "[data]\n[extra]\n", false},
		{"key in another case", "ALGORITHM = \"sha384\"\n" + header + "[data]\n", false},
		{"only a key in another case", "version = \"0.1.0\"\nAlgorithm = \"sha256\"\n[data]\n", false},
		{"data in another case", header + "[Data]\n", false},
		{"key twice", header + "algorithm = \"sha384\"\n[data]\n", false},
		{"table twice", header + "[data]\na = \"b\"\n[data]\n", false},
		{"value twice", header + "[data]\na = \"b\"\n\"a\" = \"c\"\n", false},
		{"dotted keys, then the table", header + "data.a = \"b\"\n[data]\na = \"c\"\n", false},
		{"byte order mark", "\ufeff" + header + "[data]\n", false},
		{"CRLF", strings.ReplaceAll(header+"[data]\n", "\n", "\r\n"), false},
		{"CRLF in a literal", header + "[data]\na = '''x\r\ny'''\n", false},
		{"not UTF-8", header + "[data]\na = \"\xff\"\n", false},
		{"NUL", header + "[data]\na = \"\x00\"\n", false},
		{"not TOML", "{\"version\": \"0.1.0\"}", false},
		{"string does not end", header + "[data]\na = \"b\n", false},
		{"literal does not end", header + "[data]\na = '''b\n", false},
		{"too long", header + "[data]\na = '" + deep("x", initdata.MaxDocument) + "'\n", false},
		{"too many keys", header + "[data]\n" + deep("a = \"b\"\n", 1000), false},
		{"tables too deep", "[" + deep("a.", 100000) + "a]\n", false},
		{"arrays too deep", "a = " + deep("[", 100000) + deep("]", 100000), false},
		{"inline tables too deep", "a = " + deep("{a=", 100000) + "1" + deep("}", 100000), false},
		{"keys too deep", deep("a.", 100000) + "a = 1\n", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc, err := initdata.Parse([]byte(tt.text))
			if tt.ok {
				if err != nil {
					t.Fatal(err)
				}
				if string(doc.Bytes()) != tt.text {
					t.Errorf("bytes %q", doc.Bytes())
				}
				return
			}
			if !errors.Is(err, initdata.ErrInvalid) || hostdata.Reason(err) != "initdata-invalid" {
				t.Fatalf("document %v, error %v", doc, err)
			}
			if len(err.Error()) > 400 || strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("error of %d bytes: %.500q", len(err.Error()), err.Error())
			}
		})
	}
}

// Strings and comments full of brackets and dots cost nothing of the bound.
func TestParseCountsNoStructureInStrings(t *testing.T) {
	noise := strings.Repeat(`[{.=`, 1000)
	text := header + "# " + noise + "\n[data]\n" +
		"a = '" + noise + "'\n" +
		"b = \"" + noise + "\\\"" + noise + "\"\n" +
		"c = '''\n" + noise + "'" + noise + "''" + noise + "'''''\n" +
		"d = \"\"\"\n" + noise + "\\\"\"\"" + noise + "\"\"\"\n"
	doc := mustParse(t, text)
	if got, _ := doc.Value("c"); got != noise+"'"+noise+"''"+noise+"''" {
		t.Errorf("c is %d bytes", len(got))
	}
	if got, _ := doc.Value("d"); got != noise+`"""`+noise {
		t.Errorf("d is %d bytes", len(got))
	}
}

func TestDocumentCannotBeChanged(t *testing.T) {
	text := []byte(header + "[data]\n")
	doc, err := initdata.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	before := doc.Digest()
	text[0] = 'x'
	doc.Bytes()[0] = 'y'
	if !bytes.Equal(doc.Digest(), before) {
		t.Error("the digest changed with a caller's bytes")
	}
}

func TestFit(t *testing.T) {
	digest := bytes.Repeat([]byte{0xff}, 64)
	for _, tt := range []struct{ length, size int }{{32, 32}, {32, 48}, {32, 64}, {48, 32}, {48, 48}, {64, 32}, {64, 48}, {64, 64}} {
		got, err := initdata.Fit(digest[:tt.length], tt.size)
		if err != nil {
			t.Fatal(err)
		}
		kept := min(tt.length, tt.size)
		if len(got) != tt.size || !bytes.Equal(got[:kept], digest[:kept]) || !bytes.Equal(got[kept:], make([]byte, tt.size-kept)) {
			t.Errorf("%d bytes fitted to %d: %x", tt.length, tt.size, got)
		}
	}
	for _, length := range []int{0, 20, 31} {
		if _, err := initdata.Fit(digest[:length], 32); !errors.Is(err, initdata.ErrShortDigest) {
			t.Errorf("%d bytes: error %v", length, err)
		}
	}
}

// What a TPM's PCR 8 holds after one extend of a policy's digest from zero, as measured on a TPM: the digest is used as it is.
func TestFitLeavesSHA256AsItIs(t *testing.T) {
	digest := sha256.Sum256([]byte("package agent_policy\n"))
	fitted, err := initdata.Fit(digest[:], 32)
	if err != nil {
		t.Fatal(err)
	}
	pcr := sha256.Sum256(append(make([]byte, 32), fitted...))
	if got := hex.EncodeToString(pcr[:]); got != "b397f753bc3e2a7ccd2c9b320b42527466ef7e4ee468d81df03dfba9a9afccdc" {
		t.Errorf("PCR %s", got)
	}
}
