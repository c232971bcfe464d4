// SPDX-License-Identifier: Apache-2.0

package language_test

import (
	"errors"
	"regexp"
	"testing"

	"portcullis/rules/prove/language"
)

func pattern(t testing.TB, text string) language.Set {
	t.Helper()
	s, err := language.Pattern(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWithin(t *testing.T) {
	for _, test := range []struct {
		a, b    string
		example string // "" where a is within b
	}{
		{`^a$`, `^a|b$`, ""},
		{`^[a-z]{3}$`, `^[a-z0-9]{3}$`, ""},
		{`^[a-z0-9]{3}$`, `^[a-z]{3}$`, "aa0"},
		{`^.*$`, `^[^=]*$`, "="},
		{`^(?s:.*)$`, `^.*$`, "\n"},
		{`^[0-9]{1,3}(?:\.[0-9]{1,3}){3}$`, `^[0-9.]+$`, ""},
		{`^(?:/a|/b)/.+$`, `^/a/.+$`, "/b/a"},
		{`^(?i)web$`, `^[Ww][Ee][Bb]$`, ""},
		{`^(?i)k$`, `^[Kk]$`, "\u212a"},
		{`b`, `^.*b.*$`, "\nb"},
		{`b`, `(?s)^.*b.*$`, ""},
		{`\bweb\b`, `web`, ""},
		{`web`, `\bweb\b`, "weba"},
		{`(?m)^x$`, `x`, ""},
		{`^(?:[a-f]{2}:){5}[a-f]{2}$`, `^[a-f:]{17}$`, ""},
	} {
		ok, example, err := pattern(t, test.a).Within(pattern(t, test.b))
		if err != nil || ok != (test.example == "") || len(example) != len(test.example) {
			t.Errorf("%q within %q: %v, %q (%v), want %q", test.a, test.b, ok, example, err, test.example)
		}
		if !ok && (!regexp.MustCompile(test.a).MatchString(example) || regexp.MustCompile(test.b).MatchString(example)) {
			t.Errorf("%q is no example of what %q has and %q lacks", example, test.a, test.b)
		}
	}
}

func TestAfterLeavesThePrefixOut(t *testing.T) {
	after := pattern(t, `^[A-Z]+_PORT=[0-9]+$`).After("WEB_PORT=")
	for text, want := range map[string]bool{"80": true, "": false, "x": false} {
		if after.Has(text) != want {
			t.Errorf("%q is %v", text, !want)
		}
	}
	if ok, example, err := after.Within(language.Literals("0")); ok || err != nil || example == "0" {
		t.Errorf("%v %q %v", ok, example, err)
	}
}

func TestSetsCombine(t *testing.T) {
	a, b := pattern(t, `^[ab]$`), pattern(t, `^[bc]$`)
	for text, want := range map[string][3]bool{"a": {true, false, true}, "b": {true, true, false}, "c": {true, false, false}, "d": {}} {
		got := [3]bool{language.Union(a, b).Has(text), language.Intersection(a, b).Has(text), a.Minus(b).Has(text)}
		if got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	if _, found, err := (language.Set{}).Example(); found || err != nil {
		t.Error("the zero Set is not empty")
	}
	if _, found, err := language.All().Example(); !found || err != nil {
		t.Error("All is empty")
	}
}

func TestTooLargeIsSaid(t *testing.T) {
	a := pattern(t, `^[ab]*a[ab]{30}$`)
	if _, _, err := a.Within(pattern(t, `^[ab]*b[ab]{29}$`)); !errors.Is(err, language.ErrTooLarge) {
		t.Errorf("error is %v", err)
	}
}

// Letters of all scripts make thousands of steps from each state.
func TestClassesOfManyCharactersAreCompared(t *testing.T) {
	if ok, _, err := pattern(t, `^\pL{1,63}$`).Within(pattern(t, `^[\pL\pN]{1,63}$`)); !ok || err != nil {
		t.Errorf("%v (%v)", ok, err)
	}
	if _, _, err := pattern(t, `^(?:\pL?\pN){1,900}$`).Within(pattern(t, `^(?:\pN?\pL?){1,900}$`)); err != nil && !errors.Is(err, language.ErrTooLarge) {
		t.Error(err)
	}
}

// The automaton accepts what regexp matches.
func FuzzAutomaton(f *testing.F) {
	for _, pattern := range []string{`^a$`, `a|b`, `\bx\B`, `(?m)^a$\n`, `(?i)straße`, `[^\n]*`, `^(?:a?){3}$`, `\Aa\z`, `$^`} {
		f.Add(pattern, "a\nb")
	}
	f.Fuzz(func(t *testing.T, text, sample string) {
		if len(text) > 60 || len(sample) > 60 {
			return
		}
		re, err := regexp.Compile(text)
		if err != nil {
			return
		}
		s, err := language.Pattern(text)
		if err != nil {
			t.Fatal(err)
		}
		valid := string([]rune(sample))
		if s.Has(valid) != re.MatchString(valid) {
			t.Fatalf("%q in %q: %v", valid, text, s.Has(valid))
		}
		example, found, err := s.Example()
		if err == nil && found && !re.MatchString(example) {
			t.Fatalf("%q is no string of %q", example, text)
		}
		if err == nil && !found && re.MatchString(valid) {
			t.Fatalf("%q is said to be empty", text)
		}
	})
}
