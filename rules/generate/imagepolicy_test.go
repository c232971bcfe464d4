// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"errors"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

const rejectAll = `{"default":[{"type":"reject"}],"transports":{"docker":{"r.example/it's":[{"type":"sigstoreSigned","keyPath":"kbs:///a/b/c"}]}}}`

// TestAnImagePolicyStandsInTheHubsConfiguration: read back it is what was given, and the rest is as it was.
func TestAnImagePolicyStandsInTheHubsConfiguration(t *testing.T) {
	const kbc = "socket = \"unix:///run/cdh.sock\"\n\n[kbc]\nname = \"cc_kbc\"\n"
	for name, cdh := range map[string]string{
		"no table image":     kbc,
		"a table image":      kbc + "\n[image]\nmax_concurrent_layer_downloads_per_image = 3\n",
		"a table below it":   kbc + "\n[image]\n[image.registry_config]\nunqualified-search-registries = []\n",
		"the same policy":    kbc + "\n[image]\nimage_security_policy = '''" + rejectAll + "'''\n",
		"a text without end": strings.TrimSuffix(kbc, "\n"),
	} {
		t.Run(name, func(t *testing.T) {
			next, err := withImagePolicy(cdh, rejectAll)
			if err != nil {
				t.Fatal(err)
			}
			var before, after map[string]any
			if err := errors.Join(toml.Unmarshal([]byte(cdh), &before), toml.Unmarshal([]byte(next), &after)); err != nil {
				t.Fatal(err)
			}
			image := after["image"].(map[string]any)
			if image["image_security_policy"] != rejectAll || len(after["kbc"].(map[string]any)) != 1 || after["socket"] != before["socket"] {
				t.Errorf("%s", next)
			}
			if was, ok := before["image"].(map[string]any); ok && len(image) < len(was) {
				t.Errorf("something of the table image is gone: %s", next)
			}
		})
	}
	for name, cdh := range map[string]string{
		"another policy":    kbc + "[image]\nimage_security_policy = '{}'\n",
		"a policy's place":  kbc + "[image]\nimage_security_policy_uri = 'kbs:///a/b/c'\n",
		"an inline table":   "image = { a = 1 }\n" + kbc,
		"what is no TOML":   "x",
		"a table elsewhere": kbc + "[image] # with words\na = 1\n",
	} {
		if next, err := withImagePolicy(cdh, rejectAll); !errors.Is(err, ErrImagePolicy) {
			t.Errorf("%s: %v, %s", name, err, next)
		}
	}
}

func TestImagePoliciesAreOnOneLine(t *testing.T) {
	got, err := CompactImagePolicy([]byte("{\n \"default\": [ {\"type\": \"reject\"} ]\n}\n"))
	if err != nil || got != `{"default":[{"type":"reject"}]}` {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"", "{}", `{"default": []}`, "[]", "x"} {
		if _, err := CompactImagePolicy([]byte(bad)); !errors.Is(err, ErrImagePolicy) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
