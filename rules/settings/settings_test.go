// SPDX-License-Identifier: Apache-2.0

package settings_test

import (
	"errors"
	"regexp"
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
		{"an unknown key", "[requests]\nreed_stream = true", "read settings test:2: requests.reed_stream is no key, do you mean requests.read_stream?"},
		{"a key of another table", "# first\n\nread_stream = true", "read settings test:3: read_stream is no key, do you mean requests.read_stream?"},
		{"an unknown table", "[nonsense]\nx = 1", "read settings test:1: nonsense is no key; genpolicy settings lists them"},
		{"an unknown key deep inside", "[generate.container.mounts]\n\"/x\" = { type = \"bind\" }", "read settings test:2: generate.container.mounts./x.type is no key, do you mean generate.container.mounts./x.type_?"},
		{"what the manifest says", "[sandbox]\nhostname = \"web\"", "read settings test:2: sandbox.hostname is no key; genpolicy takes it from the manifest, see spec.hostname"},
		{"a value of another type", "[requests]\n# note\nread_stream = 1", "read settings test:3: requests.read_stream is a number, want true or false"},
		{"a pattern without its end", "[common.env.names]\nA = \"^x\"", "read settings test:2: common.env.names.A"},
		{"an alternation outside the anchors", "[common.env.names]\nA = \"^x|y$\"", "anchored"},
		{"a pattern of an annotation", "common.annotations.patterns.\"a.b/c\" = \"x\"", "read settings test:1: common.annotations.patterns.a.b/c"},
		{"text that is no TOML", "= 1", "expected"},
		{"an unknown kind of volume", "[generate]\nempty_dir = \"nfs\"", "read settings test:2: generate.empty_dir is \"nfs\", want one of block-encrypted"},
		{"a request that does not exist", "[requests]\nallow = [\"NoSuchRequest\"]", "read settings test:2: requests.allow \"NoSuchRequest\" is no request, want one of UpdateContainerRequest"},
		{"a request that is misspelt", "[requests]\nallow = [\n  \"GetMetricRequest\",\n]", "read settings test:2: requests.allow \"GetMetricRequest\" is no request, do you mean GetMetricsRequest?"},
		{"a request that has rules of its own", "[requests]\nallow = [\"ReadStreamRequest\"]", "requests.allow ReadStreamRequest cannot be allowed whole: Only where `requests.read_stream`"},
		{"a level that does not exist", "[strict]\nenv = \"optinal\"", "read settings test:2: strict.env is \"optinal\", do you mean optional?"},
		{"an order that does not exist", "order = \"strict\"", "read settings test:1: order is \"strict\", want free, init-containers, enforced"},
		{"an annotation that does not exist", "annotation = \"labels\"", "read settings test:1: annotation is \"labels\", want initdata, policy"},
		{"a capability without CAP_", "[common.capabilities.default]\nEffective = [\"CHOWN\"]", "read settings test:2: common.capabilities.default.Effective \"CHOWN\" is no capability"},
		{"a directory with a slash at its end", "[common]\nshared_dirs = [\"/run/x/\"]", "read settings test:2: common.shared_dirs"},
		{"a hash that is none", "[generate.secret_hashes]\n\"a/b\" = \"xyz\"", "read settings test:2: generate.secret_hashes.a/b has no SHA-256"},
		{"a mount from nowhere", "[generate.container.mounts]\n\"/dev/shm\" = { from = \"host\" }", "read settings test:2: generate.container.mounts./dev/shm.from is \"host\", want exact"},
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

func TestAzuresIdentitiesAreGUIDsOrEmpty(t *testing.T) {
	azure, err := settings.Named("azure")
	if err != nil {
		t.Fatal(err)
	}
	s, err := settings.Load("guest-pull", azure)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"AZURE_CLIENT_ID", "AZURE_TENANT_ID"} {
		pattern := regexp.MustCompile(s.Common.Env.Names[name])
		for value, want := range map[string]bool{
			"6f0b5b6a-0c1f-4b57-9a3e-5d6f7a8b9c0d": true, "6F0B5B6A-0C1F-4B57-9A3E-5D6F7A8B9C0D": true, "": true,
			"0": false, "6f0b5b6a0c1f4b579a3e5d6f7a8b9c0d": false, "6f0b5b6a-0c1f-4b57-9a3e-5d6f7a8b9c0d0": false, "-": false,
		} {
			if pattern.MatchString(value) != want {
				t.Errorf("%s=%s: taken is %v, want %v", name, value, !want, want)
			}
		}
	}
}
