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

// TestWhatIssuersMaySetIsNoProperty: a property that a fragment could take away is not proven, and one that it cannot is.
func TestWhatIssuersMaySetIsNoProperty(t *testing.T) {
	prover := newProver(t)
	base := changed(t, data(t, pods[0]), func(p *policydata.Policy) {
		for _, c := range p.Containers {
			c.Exec, c.Mounts = nil, nil
		}
	})
	for _, tt := range []struct {
		property string
		may      fragment.May
		want     prove.Verdict
	}{
		{"no exec", fragment.May{Path: "containers.web.exec"}, prove.Unknown},
		{"no exec", fragment.May{Path: "containers.more", Registries: []string{"a.example/"}}, prove.Unknown},
		{"no exec", fragment.May{Path: "containers.web.args"}, prove.Proven},
		{"no privileged", fragment.May{Path: "containers.web.capabilities", Capabilities: []string{"CAP_SYS_ADMIN"}}, prove.Unknown},
		{"no privileged", fragment.May{Path: "containers.web.capabilities", Capabilities: []string{"CAP_CHOWN"}}, prove.Proven},
		{"no host-filled mount", fragment.May{Path: "containers.web.mounts", Mounts: []string{"/data"}}, prove.Unknown},
		{"container web cannot see volume data", fragment.May{Path: "containers.web.mounts", Mounts: []string{"/data"}}, prove.Unknown},
		{"container web cannot see volume data", fragment.May{Path: "containers.proxy.mounts", Mounts: []string{"/data"}}, prove.Proven},
		{"files of data fixed", fragment.May{Path: "containers.web.mounts", Mounts: []string{"/data"}}, prove.Unknown},
		{"policy cannot change", fragment.May{Path: "containers.web.args"}, prove.Unknown},
	} {
		property, err := prove.ParseProperty(tt.property)
		if err != nil {
			t.Fatal(err)
		}
		policy := load(t, prover, changed(t, base, func(p *policydata.Policy) { p.Issuers = []fragment.Issuer{issuer(2, tt.may)} }))
		if r, err := prover.Holds(t.Context(), policy, property); err != nil || r.Verdict != tt.want {
			t.Errorf("%s, where an issuer may set %s: %+v (%v), want %s", tt.property, tt.may.Path, r, err, tt.want)
		}
	}
}

// TestWhatIssuersMaySetHidesNothing: policies whose containers make them alike, until an issuer sets what makes them so.
func TestWhatIssuersMaySetHidesNothing(t *testing.T) {
	prover := newProver(t)
	for name, test := range map[string]struct {
		may        string
		both, a, b func(*policydata.Policy)
	}{
		"a variable that each container has fixed": {"containers.web.env",
			func(p *policydata.Policy) {
				p.Common.Env.Whole = []string{"^[A-Z]+=.*$"}
				for _, c := range p.Containers {
					c.Env.Fixed = append(c.Env.Fixed, "KNOWN=1")
				}
			},
			func(p *policydata.Policy) { p.Common.Env.Names = map[string]string{"KNOWN": "^x$"} }, func(*policydata.Policy) {}},
		"variables of commands, where there are none": {"containers.web.exec",
			func(p *policydata.Policy) {
				p.Requests.Exec = policydata.Exec{}
				for _, c := range p.Containers {
					c.Exec = nil
				}
			},
			func(*policydata.Policy) {}, func(p *policydata.Policy) { p.Strict.ExecEnv = policydata.Optional }},
		"a command that each container lists": {"containers.more",
			func(p *policydata.Policy) {
				for _, c := range p.Containers {
					c.Exec = append(c.Exec, []string{"ps"})
				}
			},
			func(*policydata.Policy) {}, func(p *policydata.Policy) { p.Requests.Exec.Commands = [][]string{{"ps"}} }},
	} {
		for _, issuers := range [][]fragment.Issuer{nil, {issuer(2, fragment.May{Path: test.may})}} {
			of := func(change func(*policydata.Policy)) *prove.Policy {
				return load(t, prover, changed(t, data(t, pods[0]), func(p *policydata.Policy) {
					test.both(p)
					change(p)
					p.Issuers = issuers
				}))
			}
			want := prove.Proven
			if issuers != nil {
				want = prove.Unknown
			}
			if r, err := prover.Within(t.Context(), of(test.a), of(test.b)); err != nil || r.Verdict != want {
				t.Errorf("%s, %d issuers: %+v (%v), want %s", name, len(issuers), r, err, want)
			}
		}
	}
}
