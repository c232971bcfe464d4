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
	for name, test := range map[string]struct {
		floor prove.Floor
		want  int
		wrong bool
	}{
		"properties":          {prove.Floor{Require: []string{"no exec", "stdout closed"}}, 2, false},
		"lists":               {prove.Floor{Registries: []string{"ghcr.io/"}, Capabilities: []string{"CAP_CHOWN"}}, 2, false},
		"nothing":             {prove.Floor{}, 0, false},
		"what is no property": {prove.Floor{Require: []string{"no exit"}}, 0, true},
	} {
		properties, err := test.floor.Properties()
		if len(properties) != test.want || test.wrong != errors.Is(err, prove.ErrFloor) {
			t.Errorf("%s: %d properties (%v)", name, len(properties), err)
		}
	}
}

func TestAFloorHoldsRegistriesAndCapabilities(t *testing.T) {
	prover := newProver(t)
	policy := load(t, prover, data(t, pods[0]))
	for _, test := range []struct {
		floor prove.Floor
		want  prove.Verdict
	}{
		{prove.Floor{Registries: []string{""}}, prove.Proven},
		{prove.Floor{Registries: []string{"registry.invalid/"}}, prove.Refuted},
		{prove.Floor{Capabilities: []string{"CAP_CHOWN"}}, prove.Refuted},
		{prove.Floor{Require: []string{"policy cannot change"}}, prove.Proven},
	} {
		properties, err := test.floor.Properties()
		if err != nil {
			t.Fatal(err)
		}
		if r, err := prover.Holds(t.Context(), policy, properties[0]); err != nil || r.Verdict != test.want {
			t.Errorf("%+v: %+v (%v), want %s", test.floor, r, err, test.want)
		}
	}
}
