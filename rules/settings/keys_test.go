// SPDX-License-Identifier: Apache-2.0

package settings_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portcullis/rules"
	"portcullis/rules/settings"
)

var update = flag.Bool("update", false, "write docs/settings.md")

func TestEveryKeyHasAMeaning(t *testing.T) {
	for _, k := range settings.Keys() {
		if k.Meaning == "" {
			t.Errorf("%s has none", k.Path)
		}
	}
	for _, name := range rules.Listable() {
		found := false
		for _, k := range settings.Keys() {
			found = found || k.Path == "requests.allow" && strings.Contains(k.Meaning, name)
		}
		if !found {
			t.Errorf("requests.allow does not say that %s may be listed", name)
		}
	}
}

// What is printed is a drop-in that changes nothing, and has each key.
func TestDescriptionReadsBackAsItIs(t *testing.T) {
	for _, platform := range settings.Platforms() {
		s, err := settings.Load(platform)
		if err != nil {
			t.Fatal(err)
		}
		text, err := s.Describe()
		if err != nil {
			t.Fatal(err)
		}
		again, err := settings.Load(platform, settings.DropIn{Name: "described", Text: text})
		if err != nil {
			t.Fatalf("%s: %v", platform, err)
		}
		if diff := cmp.Diff(s, again); diff != "" {
			t.Errorf("%s reads back otherwise:\n%s", platform, diff)
		}
		for _, k := range settings.Keys() {
			if !strings.Contains(string(text), k.Meaning) {
				t.Errorf("%s does not say what %s means", platform, k.Path)
			}
		}
	}
}

func TestSettingsDocument(t *testing.T) {
	const path = "../../docs/settings.md"
	want, err := settings.Document()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("docs/settings.md is old (make generate):\n%s", diff)
	}
}
