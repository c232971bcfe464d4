// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// The test binary is a Go binary with modules of its own.
func TestADocumentNamesEveryModule(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var first, second, log bytes.Buffer
	if code := run([]string{self}, &first, &log); code != 0 {
		t.Fatalf("exit %d: %s", code, log.String())
	}
	if run([]string{self}, &second, &log); !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two documents of one binary differ")
	}
	var doc document
	if err := json.Unmarshal(first.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Format != "CycloneDX" || len(doc.Metadata.Component.Hashes) != 1 || len(doc.Dependencies) != 1 {
		t.Errorf("unexpected document: %+v", doc)
	}
	if !strings.HasPrefix(doc.Components[0].PURL, "pkg:golang/std@1.") {
		t.Errorf("first component %+v, want the standard library", doc.Components[0])
	}
}

func TestWhatIsNoBinaryIsRefused(t *testing.T) {
	for name, args := range map[string][]string{"no argument": nil, "absent": {"/does/not/exist"}, "no binary": {"main.go"}} {
		var out, log bytes.Buffer
		if code := run(args, &out, &log); code == 0 || out.Len() > 0 || log.Len() == 0 {
			t.Errorf("%s: exit %d, output %q, message %q", name, code, out.String(), log.String())
		}
	}
}
