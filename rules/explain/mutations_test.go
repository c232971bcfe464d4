// SPDX-License-Identifier: Apache-2.0

package explain_test

import (
	"regexp"
	"strings"
	"testing"
	"unicode"

	"portcullis/internal/rulestest"
	"portcullis/rules/explain"
)

var brackets = regexp.MustCompile(`\[[^\]]*\]`)

// Whatever leaf of a request differs, the explanation of its denial leads to that field, in three lines that a terminal can be
// shown. Every fifth change is tried.
func TestAnyChangeLeadsToItsField(t *testing.T) {
	p := shop(t)
	e, err := explain.New(fullText(t, p))
	if err != nil {
		t.Fatal(err)
	}
	emulator := rulestest.Emulator{Policy: p, Pod: rulestest.DefaultPod(p)}
	denied, n := 0, 0
	for m := range rulestest.Mutations(emulator.CreateContainer("web")) {
		if n++; n%5 != 1 {
			continue
		}
		x := explained(t, e, m.Request.Kind, m.Request.Input, made)
		if len(x.Checks) == 0 {
			continue // it is allowed
		}
		denied++
		if len(x.Findings) == 0 {
			t.Errorf("%s of %s: no finding", m.Change, m.Where)
			continue
		}
		changed, named := brackets.ReplaceAllString(m.Path, ""), brackets.ReplaceAllString(x.Findings[0].Path, "")
		repeats := named == "storages.driver_options" && changed == "OCI.Annotations" // the pull repeats all annotations
		if !strings.HasPrefix(changed, named) && !strings.HasPrefix(named, changed) && !repeats {
			t.Errorf("%s of %s: leads to %s", m.Change, m.Where, x.Findings[0].Path)
		}
		var text strings.Builder
		if err := x.Write(&text, m.Request.Kind, explain.Style{}); err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(text.String(), "\n"); lines > 3 || strings.ContainsFunc(text.String(), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
			t.Errorf("%s of %s: %d lines: %q", m.Change, m.Where, lines, &text)
		}
	}
	t.Logf("%d changes denied", denied)
	if denied < 150 {
		t.Error("hardly any change was tried")
	}
}
