// SPDX-License-Identifier: Apache-2.0

package prove_test

import (
	"testing"

	"portcullis/engine/fragment"
	"portcullis/rules/policydata"
	"portcullis/rules/prove"
)

// releaseKey is a public key whose private one nobody has.
const releaseKey = "MCowBQYDK2VwAyEAPV55OZwPT2q7jA2bvJ3eVIp3YrRnXJ7f6mTxNgfRFLM="

func issuer(svn uint64, may ...fragment.May) fragment.Issuer {
	return fragment.Issuer{Feed: "shop", Key: releaseKey, MinimumSVN: svn, May: may}
}

// TestIssuersAreCompared: who may make a policy more than it is counts as what it allows.
func TestIssuersAreCompared(t *testing.T) {
	prover := newProver(t)
	base := data(t, pods[0])
	with := func(issuers ...fragment.Issuer) *prove.Policy {
		return load(t, prover, changed(t, base, func(p *policydata.Policy) { p.Issuers = issuers }))
	}
	exec := fragment.May{Path: "containers.web.exec"}
	image := fragment.May{Path: "containers.web.image", Registries: []string{"a.example/", "b.example/"}}
	other := issuer(2, exec)
	other.Feed = "other"
	a := with(issuer(2, exec, image))
	for _, tt := range []struct {
		name string
		b    *prove.Policy
		want prove.Verdict
	}{
		{"none", with(), prove.Proven},
		{"the same", with(issuer(2, exec, image)), prove.Proven},
		{"a higher minimum_svn", with(issuer(3, exec, image)), prove.Proven},
		{"fewer paths", with(issuer(2, exec)), prove.Proven},
		{"fewer registries", with(issuer(2, fragment.May{Path: image.Path, Registries: []string{"b.example/"}})), prove.Proven},
		{"a lower minimum_svn", with(issuer(1, exec, image)), prove.Unknown},
		{"another path", with(issuer(2, exec, fragment.May{Path: "containers.db.exec"})), prove.Unknown},
		{"another registry", with(issuer(2, fragment.May{Path: image.Path, Registries: []string{"c.example/"}})), prove.Unknown},
		{"another feed", with(other), prove.Unknown},
	} {
		result, err := prover.Within(t.Context(), a, tt.b)
		if err != nil {
			t.Fatal(err)
		}
		if result.Verdict != tt.want {
			t.Errorf("%s: %s, want %s: %v", tt.name, result.Verdict, tt.want, result.Open)
		}
	}
}
