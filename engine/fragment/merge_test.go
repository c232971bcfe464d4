// SPDX-License-Identifier: Apache-2.0

package fragment_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portcullis/engine/fragment"
	"portcullis/engine/policytext"
)

// containersOf reads a policy's containers back.
func containersOf(t *testing.T, text []byte) map[string]map[string]any {
	t.Helper()
	p, err := policytext.Split(text)
	if err != nil {
		t.Fatal(err)
	}
	var data struct{ Containers map[string]map[string]any }
	if err := json.Unmarshal(p.Data, &data); err != nil {
		t.Fatal(err)
	}
	return data.Containers
}

func document(parts map[string]*fragment.Part) fragment.Document {
	return fragment.Document{Version: 1, Feed: feed, SVN: 3, Containers: parts}
}

func image() *fragment.Image {
	return &fragment.Image{Name: newImage, Also: []string{}, Digest: newDigest}
}

func capabilities(names ...string) *fragment.Capabilities {
	return &fragment.Capabilities{Ambient: []string{}, Bounding: names, Effective: names, Inheritable: []string{}, Permitted: names}
}

// TestMergeSetsWhatAFragmentSays and leaves all else as it was, the rules' digest and the issuers too.
func TestMergeSetsWhatAFragmentSays(t *testing.T) {
	issuer := byKey(t, newKey(t).Public())
	measured := policy(t, issuer)
	d := update(3)
	d.Containers["app"].Exec = &[][]string{{"ls"}}
	merged, err := fragment.Merge(measured, []fragment.Accepted{{Document: d, Issuer: &issuer}})
	if err != nil {
		t.Fatal(err)
	}
	before, after := containersOf(t, measured), containersOf(t, merged)
	want := before["app"]
	want["exec"] = []any{[]any{"ls"}}
	want["image"] = map[string]any{"also": []any{}, "digest": newDigest, "from": "guest-pull", "layers": []any{}, "source": newImage}
	want["OCI"].(map[string]any)["Annotations"] = map[string]any{"io.kubernetes.cri.image-name": newImage}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got, err := fragment.Issuers(merged); err != nil || cmp.Diff([]fragment.Issuer{issuer}, got) != "" {
		t.Errorf("issuers %v, %v", got, err)
	}
	head, _, _ := strings.Cut(string(measured), "policy_data")
	if !strings.HasPrefix(string(merged), head) {
		t.Error("the text before policy_data has changed")
	}
}

// TestMergeOfNothingChangesNothing: numbers, escapes and order of a policy mean what they meant.
func TestMergeOfNothingChangesNothing(t *testing.T) {
	measured := policy(t, byKey(t, newKey(t).Public()))
	merged, err := fragment.Merge(measured, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(containersOf(t, measured), containersOf(t, merged)); diff != "" {
		t.Error(diff)
	}
}

// TestTheCeiling: path and bounds of each field.
func TestTheCeiling(t *testing.T) {
	all := []fragment.May{
		{Path: "containers.app.image", Registries: []string{"registry.example.org/shop"}},
		{Path: "containers.app.capabilities", Capabilities: []string{"CAP_CHOWN"}},
		{Path: "containers.app.mounts", Mounts: []string{"/cache"}},
		{Path: "containers.debug", Registries: []string{"registry.example.org/"}},
	}
	other := func(name string) *fragment.Image {
		return &fragment.Image{Name: name + "@" + newDigest, Also: []string{}, Digest: newDigest}
	}
	also := image()
	also.Also = []string{"evil.example.org/shop/app@" + newDigest}
	mount := func(at string) map[string]*fragment.Mount {
		return map[string]*fragment.Mount{at: {From: "local", Options: []string{"rbind"}, Source: "cache", Type: "bind"}}
	}
	tests := map[string]struct {
		container string
		part      *fragment.Part
		allowed   bool
	}{
		"image of the repository":       {"app", &fragment.Part{Image: image()}, true},
		"image below the repository":    {"app", &fragment.Part{Image: other("registry.example.org/shop/app/next")}, true},
		"image beside the repository":   {"app", &fragment.Part{Image: other("registry.example.org/shopping/app")}, false},
		"image of another registry":     {"app", &fragment.Part{Image: other("evil.example.org/shop/app")}, false},
		"registry as a prefix":          {"app", &fragment.Part{Image: other("registry.example.org.evil.example/shop")}, false},
		"another name elsewhere":        {"app", &fragment.Part{Image: also}, false},
		"capability within":             {"app", &fragment.Part{Capabilities: capabilities("CAP_CHOWN")}, true},
		"capability beyond":             {"app", &fragment.Part{Capabilities: capabilities("CAP_CHOWN", "CAP_SYS_ADMIN")}, false},
		"mount within":                  {"app", &fragment.Part{Mounts: mount("/cache")}, true},
		"mount elsewhere":               {"app", &fragment.Part{Mounts: mount("/etc")}, false},
		"field without a grant":         {"app", &fragment.Part{Exec: &[][]string{{"sh"}}}, false},
		"container without a grant":     {"db", &fragment.Part{Image: image()}, false},
		"new container":                 {"debug", &fragment.Part{Like: "app", Image: image(), Exec: &[][]string{{"sh"}}}, true},
		"new container with a mount":    {"debug", &fragment.Part{Like: "app", Image: image(), Mounts: mount("/cache")}, false},
		"new container without image":   {"debug", &fragment.Part{Like: "app", Exec: &[][]string{}}, false},
		"new container like none":       {"debug", &fragment.Part{Image: image()}, false},
		"new container like the pause":  {"debug", &fragment.Part{Like: "$sandbox", Image: image()}, false},
		"new container of another name": {"more", &fragment.Part{Like: "app", Image: image()}, false},
		"measured container like other": {"app", &fragment.Part{Like: "db", Image: image()}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			issuer := byKey(t, newKey(t).Public())
			issuer.May = all
			measured := policy(t, issuer)
			merged, err := fragment.Merge(measured, []fragment.Accepted{{Document: document(map[string]*fragment.Part{tt.container: tt.part}), Issuer: &issuer}})
			if tt.allowed && err != nil || !tt.allowed && !errors.Is(err, fragment.ErrCeiling) {
				t.Fatalf("allowed %v: %v", tt.allowed, err)
			}
			if tt.allowed && cmp.Equal(containersOf(t, measured)[tt.container], containersOf(t, merged)[tt.container]) {
				t.Error("nothing was set")
			}
		})
	}
}

// TestAnImageIsOfTheRegistryThatItsNameBeginsWith, however a reader takes the name apart.
func TestAnImageIsOfTheRegistryThatItsNameBeginsWith(t *testing.T) {
	for _, tt := range []struct {
		registry, name string
		allowed        bool
	}{
		{"registry.example", "registry.example/app", true},
		{"registry.example/", "registry.example/shop/app", true},
		{"registry.example:5000", "registry.example:5000/shop/app:v1", true},
		{"registry.example/shop", "registry.example/shop", true},
		{"registry.example/shop", "registry.example/shop:v1.2_3-4", true},
		{"registry.example/a_b/c--d", "registry.example/a_b/c--d/e__f", true},
		{"registry.example", "registry.example:5000/app", false},
		{"registry.example:5000", "registry.example:50001/app", false},
		{"registry.example", "registry.example:x@evil.example/app", false},
		{"registry.example", "registry.example@evil.example/app", false},
		{"registry.example/shop", "registry.example/shop/../evil/app", false},
		{"registry.example/shop/", "registry.example/shop/../evil", false},
		{"registry.example/shop", "registry.example/shop:v1/../../evil", false},
		{"registry.example/shop", "registry.example/shop/./app", false},
		{"registry.example/shop", "registry.example/shop//app", false},
		{"registry.example/shop", "registry.example/shop/%2e%2e/evil", false},
		{"registry.example/shop", "registry.example/shop/app@" + oldDigest, false},
		{"registry.example/shop", "registry.example/shop/app?ns=evil.example", false},
		{"registry.example/shop", "registry.example/shop/app#x", false},
		{"registry.example/shop", "registry.example/shop/app\u00a0", false},
		{"registry.example/shop", "registry.example/shop/\x00", false},
		{"registry.example/shop", "registry.example/shop\\app", false},
		{"registry.example/shop", "REGISTRY.example/shop/app", false},
		{"registry.example", "https://registry.example/app", false},
	} {
		issuer := byKey(t, newKey(t).Public())
		issuer.May = []fragment.May{{Path: "containers.app.image", Registries: []string{tt.registry}}}
		d := document(map[string]*fragment.Part{"app": {Image: &fragment.Image{Name: tt.name + "@" + newDigest, Also: []string{}, Digest: newDigest}}})
		_, err := d.JSON()
		if err == nil {
			_, err = fragment.Merge(policy(t, issuer), []fragment.Accepted{{Document: d, Issuer: &issuer}})
		}
		if tt.allowed != (err == nil) {
			t.Errorf("%q of %q, allowed %v: %v", tt.name, tt.registry, tt.allowed, err)
		}
	}
}

// TestANewContainerIsLikeTheMeasuredOne: what one issuer has set of it, another may not hand on.
func TestANewContainerIsLikeTheMeasuredOne(t *testing.T) {
	one, other := byKey(t, newKey(t).Public()), byKey(t, newKey(t).Public())
	one.May = []fragment.May{{Path: "containers.app.capabilities", Capabilities: []string{"CAP_NET_ADMIN"}}, {Path: "containers.app.args"}}
	other.May = []fragment.May{{Path: "containers.side", Registries: []string{"registry.example.org/shop"}}}
	measured := policy(t, one, other)
	merged, err := fragment.Merge(measured, []fragment.Accepted{
		{Document: document(map[string]*fragment.Part{"app": {Capabilities: capabilities("CAP_NET_ADMIN"), Args: &[]string{"sh"}}}), Issuer: &one},
		{Document: document(map[string]*fragment.Part{"side": {Like: "app", Image: image()}}), Issuer: &other},
	})
	if err != nil {
		t.Fatal(err)
	}
	before, after := containersOf(t, measured)["app"], containersOf(t, merged)["side"]
	for _, field := range []string{"capabilities", "args"} {
		if diff := cmp.Diff(before[field], after[field]); diff != "" {
			t.Errorf("%s (-measured +new)\n%s", field, diff)
		}
	}
}

// TestMergeRefusesOtherPolicies: what is in another shape takes no fragments.
func TestMergeRefusesOtherPolicies(t *testing.T) {
	issuer := byKey(t, newKey(t).Public())
	for name, text := range map[string]string{
		"no policy_data": "package agent_policy\n\ndefault CreateContainerRequest := true\n",
		"upstream's":     "package agent_policy\n\npolicy_data := {\"containers\":[]}\n",
		"bare":           `{"containers":{}}`,
	} {
		if _, err := fragment.Merge([]byte(text), []fragment.Accepted{{Document: update(3), Issuer: &issuer}}); !errors.Is(err, fragment.ErrPolicy) {
			t.Errorf("%s: %v, want ErrPolicy", name, err)
		}
	}
	layers := strings.Replace(string(policy(t, issuer)), `"from":"guest-pull"`, `"from":"layers"`, -1)
	if _, err := fragment.Merge([]byte(layers), []fragment.Accepted{{Document: update(3), Issuer: &issuer}}); !errors.Is(err, fragment.ErrCeiling) {
		t.Errorf("image of layers: %v, want ErrCeiling", err)
	}
}
