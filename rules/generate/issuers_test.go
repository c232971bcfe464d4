// SPDX-License-Identifier: Apache-2.0

package generate_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"portcullis/engine/fragment"
	"portcullis/internal/generatetest"
	"portcullis/rules/generate"
	"portcullis/rules/settings"
)

// TestAPolicyNamesTheIssuersOfItsContainers and no grant that is about another pod's.
func TestAPolicyNamesTheIssuersOfItsContainers(t *testing.T) {
	const key = "MCowBQYDK2VwAyEAPV55OZwPT2q7jA2bvJ3eVIp3YrRnXJ7f6mTxNgfRFLM="
	exec, elsewhere, extra := fragment.May{Path: "containers.app.exec"}, fragment.May{Path: "containers.elsewhere.exec"}, fragment.May{Path: "containers.debug"}
	m := generatetest.Manifest(t, "testdata/pods/volumes.yaml")
	g := generate.New(generatetest.Settings(t, settings.DefaultPlatform), generatetest.Images(t, "testdata/images.json"), nil, generate.Options{
		Issuers: []fragment.Issuer{
			{Feed: "shop", Key: key, MinimumSVN: 4, May: []fragment.May{exec, elsewhere, extra}},
			{Feed: "other", Key: key, May: []fragment.May{elsewhere}},
		}})
	p, _, err := g.Policy(t.Context(), m.Pods()[0])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]fragment.Issuer{{Feed: "shop", Key: key, MinimumSVN: 4, May: []fragment.May{exec, extra}}}, p.Issuers); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
