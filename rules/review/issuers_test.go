// SPDX-License-Identifier: Apache-2.0

package review

import (
	"strings"
	"testing"

	"portcullis/engine/fragment"
	"portcullis/rules/policydata"
)

// TestWhoMayUpdateAPolicyIsSaid, to reviewers and in differences.
func TestWhoMayUpdateAPolicyIsSaid(t *testing.T) {
	p := &policydata.Policy{Issuers: []fragment.Issuer{{Feed: "shop", MinimumSVN: 4, Key: "MCowBQYDK2VwAyEAPV55OZwPT2q7jA2bvJ3eVIp3YrRnXJ7f6mTxNgfRFLM=",
		May: []fragment.May{{Path: "containers.web.exec"}, {Path: "containers.web.image", Registries: []string{"a/", "b/"}}}}}}
	want := []string{"containers.web.exec set by signed fragments of feed shop from svn 4 on, by key:sha256:", "containers.web.image (registries a/, b/) set by"}
	said := &speaker{}
	said.pod(p)
	var texts, warned []string
	for _, s := range said.list {
		texts = append(texts, s.words)
	}
	for _, w := range Of(p) {
		warned = append(warned, w.Text)
	}
	for _, words := range want {
		if !strings.Contains(strings.Join(texts, "\n"), words) || !strings.Contains(strings.Join(warned, "\n"), words) {
			t.Errorf("nobody says %q in\n%s\n%s", words, strings.Join(texts, "\n"), strings.Join(warned, "\n"))
		}
	}
}
