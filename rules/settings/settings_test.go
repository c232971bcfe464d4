// SPDX-License-Identifier: Apache-2.0

package settings_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"portcullis/rules/policydata"
	"portcullis/rules/settings"
)

func TestEveryPlatformLoadsWithEveryDropIn(t *testing.T) {
	want := []string{"guest-pull", "host-pull", "non-coco", "peer-pods", "tardev"}
	if got := settings.Platforms(); !slices.Equal(got, want) {
		t.Fatalf("platforms are %v, want %v", got, want)
	}
	for _, platform := range settings.Platforms() {
		if _, err := settings.Load(platform); err != nil {
			t.Errorf("%s: %v", platform, err)
		}
		for _, name := range settings.DropIns() {
			dropIn, err := settings.Named(name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := settings.Load(platform, dropIn); err != nil {
				t.Errorf("%s with %s: %v", platform, name, err)
			}
		}
	}
}

func TestCompatKataIsUpstreamsStrictness(t *testing.T) {
	dropIn, err := settings.Named("compat-kata")
	if err != nil {
		t.Fatal(err)
	}
	s, err := settings.Load(settings.DefaultPlatform, dropIn)
	if err != nil {
		t.Fatal(err)
	}
	if s.Strict != policydata.StrictKata() {
		t.Errorf("strictness is %+v", s.Strict)
	}
	s, err = settings.Load(settings.DefaultPlatform)
	if err != nil || s.Strict != policydata.StrictDefault() {
		t.Errorf("default strictness is %+v (%v)", s.Strict, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"an unknown key", "[requests]\nreed_stream = true", "read settings test: there is no key \"reed_stream\""},
		{"a value of another type", "[requests]\nread_stream = 1", "read settings test: requests.read_stream is a number, want bool"},
		{"a pattern without its end", "[common.env.names]\nA = \"^x\"", "anchored"},
		{"an alternation outside the anchors", "[common.env.names]\nA = \"^x|y$\"", "anchored"},
		{"text that is no TOML", "= 1", "expected"},
		{"an unknown kind of volume", "[generate]\nempty_dir = \"nfs\"", "empty_dir"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := settings.Load("guest-pull", settings.DropIn{Name: "test", Text: []byte(test.text)})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want one that says %q", err, test.want)
			}
		})
	}
	if _, err := settings.Load("vmware"); !errors.Is(err, settings.ErrUnknown) {
		t.Errorf("unknown platform: %v", err)
	}
}

func TestLaterDropInsWin(t *testing.T) {
	text := func(s string) settings.DropIn { return settings.DropIn{Name: "test", Text: []byte(s)} }
	s, err := settings.Load("guest-pull",
		text("[common.env.names]\nA = \"^1$\"\nTERM = \"$(remove)\""), text("[common.env.names]\nA = \"^2$\""))
	if err != nil {
		t.Fatal(err)
	}
	names := s.Common.Env.Names
	if _, ok := names["TERM"]; ok || names["A"] != "^2$" {
		t.Errorf("names are %v", names)
	}
}
