// SPDX-License-Identifier: Apache-2.0

package prove_test

import (
	"errors"
	"testing"

	"portcullis/rules/policydata"
	"portcullis/rules/prove"
)

// Each property with a change of the shop's policy that gives it, and one that takes it away.
func TestProperties(t *testing.T) {
	shop := data(t, pods[0])
	prover := newProver(t)
	noMounts := func(p *policydata.Policy) {
		for _, c := range p.Containers {
			c.Mounts = nil
		}
	}
	closed := func(p *policydata.Policy) {
		p.Requests.Exec.Commands, p.Requests.Exec.Joined = nil, nil
		for _, c := range p.Containers {
			c.Exec, c.Stdin = nil, false
		}
	}
	for property, test := range map[string]struct{ has, lacks func(*policydata.Policy) }{
		"no exec":               {closed, func(p *policydata.Policy) { p.Requests.Exec.Commands = [][]string{{"sh"}} }},
		"no stdin":              {closed, func(p *policydata.Policy) { p.Containers["web"].Stdin = true }},
		"stdout closed":         {closed, func(p *policydata.Policy) { p.Requests.ReadStream = true }},
		"only images by digest": {byDigest, func(p *policydata.Policy) { p.Containers["web"].Image.Digest = "" }},
		"no host-filled mount": {noMounts, func(p *policydata.Policy) {
			p.Containers["web"].Mounts["/host"] = policydata.Mount{From: policydata.MountShared, Options: []string{"ro"}, Source: "host", Type: "bind"}
		}},
		"no privileged": {closed, func(p *policydata.Policy) {
			all := policydata.Capabilities{Bounding: []string{"CAP_SYS_ADMIN"}}
			p.Common.Capabilities["all"], p.Containers["web"].Capabilities = all, "all"
		}},
		"container web cannot see volume host": {closed, func(p *policydata.Policy) {
			p.Containers["web"].Mounts["/host"] = policydata.Mount{From: policydata.MountShared, Options: []string{"ro"}, Source: "host", Type: "bind"}
		}},
		"files of /host fixed": {closed, func(p *policydata.Policy) {
			p.Containers["web"].Mounts["/host"] = policydata.Mount{From: policydata.MountShared, Options: []string{"ro"}, Source: "host", Type: "bind"}
		}},
		"order enforced":       {func(p *policydata.Policy) { p.Order = policydata.OrderEnforced }, func(p *policydata.Policy) { p.Order = policydata.OrderFree }},
		"policy cannot change": {closed, nil}, // the rules have no policy that may
	} {
		t.Run(property, func(t *testing.T) {
			asked, err := prove.ParseProperty(property)
			if err != nil {
				t.Fatal(err)
			}
			if r, err := prover.Holds(t.Context(), load(t, prover, changed(t, shop, test.has)), asked); err != nil || r.Verdict != prove.Proven {
				t.Errorf("with it: %+v (%v)", r, err)
			}
			if test.lacks == nil {
				return
			}
			if r, err := prover.Holds(t.Context(), load(t, prover, changed(t, shop, test.lacks)), asked); err != nil || r.Verdict != prove.Refuted {
				t.Errorf("without it: %+v (%v)", r, err)
			}
		})
	}
}

func byDigest(p *policydata.Policy) {
	for name, c := range p.Containers {
		if !c.Image.Bound() {
			delete(p.Containers, name)
		}
		c.After = nil
	}
}

func TestFloors(t *testing.T) {
	for text, want := range map[string]int{
		`require = ["no exec", "stdout closed"]`:                      2,
		"registries = [\"ghcr.io/\"]\ncapabilities = [\"CAP_CHOWN\"]": 2,
		``:                      0,
		`require = ["no exit"]`: 0,
		`requires = []`:         0,
	} {
		properties, err := prove.ParseFloor(text)
		if len(properties) != want || (want == 0) != errors.Is(err, prove.ErrFloor) {
			t.Errorf("%q: %d properties (%v)", text, len(properties), err)
		}
	}
}

func TestAFloorHoldsRegistriesAndCapabilities(t *testing.T) {
	prover := newProver(t)
	policy := load(t, prover, data(t, pods[0]))
	for text, want := range map[string]prove.Verdict{
		`registries = [""]`:                  prove.Proven,
		`registries = ["registry.invalid/"]`: prove.Refuted,
		`capabilities = ["CAP_CHOWN"]`:       prove.Refuted,
		`require = ["policy cannot change"]`: prove.Proven,
	} {
		properties, err := prove.ParseFloor(text)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := prover.Holds(t.Context(), policy, properties[0]); err != nil || r.Verdict != want {
			t.Errorf("%s: %+v (%v), want %s", text, r, err, want)
		}
	}
}
