// SPDX-License-Identifier: Apache-2.0

package generate_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"

	"portcullis/internal/generatetest"
	"portcullis/rules/generate"
)

// What a BOM says, what lacks one, and what is written back.
func TestUTF16IsReadAsKubectlReadsIt(t *testing.T) {
	pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: \"naïve-😀\"}\nspec:\n  containers: [{name: a, image: b}]\n"
	encode := func(order binary.AppendByteOrder, mark bool) []byte {
		var out []byte
		units := utf16.Encode([]rune(pod))
		if mark {
			units = append([]uint16{0xFEFF}, units...)
		}
		for _, u := range units {
			out = order.AppendUint16(out, u)
		}
		return out
	}
	for _, test := range []struct {
		name       string
		text       []byte
		warned     bool
		wantRefuse string
	}{
		{"UTF-8", []byte(pod), false, ""},
		{"UTF-8 with a mark", []byte("\ufeff" + pod), false, ""},
		{"little-endian", encode(binary.LittleEndian, true), true, ""},
		{"big-endian", encode(binary.BigEndian, true), true, ""},
		{"without a mark", encode(binary.LittleEndian, false), false, "save it as UTF-8"},
		{"cut in a character", encode(binary.LittleEndian, true)[:9], false, "save it as UTF-8"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, err := generate.Parse("pod.yaml", test.text, generate.ReadOptions{})
			if test.wantRefuse != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantRefuse) {
					t.Errorf("error is %v, want one that says %q", err, test.wantRefuse)
				}
				return
			}
			if err != nil || len(m.Pods()) != 1 || m.Pods()[0].Name() != "Pod naïve-😀" {
				t.Fatalf("read %v, %v", m, err)
			}
			if warned := len(m.Warnings()) > 0; warned != test.warned {
				t.Errorf("warnings are %v", m.Warnings())
			}
			if text, err := m.Text(); err != nil || strings.TrimPrefix(string(text), "\ufeff") != pod {
				t.Errorf("written back as %q, %v", text, err)
			}
		})
	}
}

// A key that is there twice is refused, but not beside a merge that brings it too.
func TestAKeyTwiceIsRefusedAndAMergeIsNone(t *testing.T) {
	const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - &first\n    name: one\n    image: b\n"
	for more, want := range map[string]string{
		"  - <<: *first\n    name: two\n":         "",
		"  - name: two\n    <<: *first\n":         "",
		"    image: c\n":                          "pod.yaml:9: is not valid YAML: key \"image\" already set in map; write it once",
		"    env: [{name: a, name: b}]\n":         "pod.yaml:9: is not valid YAML: key \"name\" already set in map; write it once",
		"    env: [{\"name\": a, 'name': b}]\n":   "pod.yaml:9: is not valid YAML: key \"name\" already set in map; write it once",
		"  - <<: [*first, *first]\n    name: d\n": "",
	} {
		_, err := generate.Parse("pod.yaml", []byte(pod+more), generate.ReadOptions{})
		if got := fmt.Sprint(err); want == "" && err != nil || want != "" && got != want {
			t.Errorf("%q: %v, want %q", more, err, want)
		}
	}
}

// kubectl ends every line of a file, the last one too, so a text there does not depend on it.
func TestTheLastLineOfAFileNeedsNoLineFeed(t *testing.T) {
	const text = `apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers: [{name: web, image: ghcr.io/acme/app:v2, volumeMounts: [{name: c, mountPath: /c}]}]
  volumes: [{name: c, configMap: {name: c}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data:
  text: |
    the last line
`
	var made []string
	for _, manifest := range []string{text, strings.TrimSuffix(text, "\n")} {
		m, err := generate.Parse("web.yaml", []byte(manifest), generate.ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		policies, _, err := generatetest.Policies(m, generatetest.Settings(t, "guest-pull"), generatetest.Images(t, "testdata/images.json"))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := policies[0].JSON()
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, string(raw))
	}
	sum := sha256.Sum256([]byte("the last line\n"))
	if made[0] != made[1] || !strings.Contains(made[1], hex.EncodeToString(sum[:])) {
		t.Errorf("without the last line feed the policy is another one:\n%s\n%s", made[0], made[1])
	}
}
