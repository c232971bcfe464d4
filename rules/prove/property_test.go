// SPDX-License-Identifier: Apache-2.0

package prove_test

import (
	"errors"
	"strings"
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
		if !c.ImageBound() {
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

// TestPropertiesThatLookAsIf: policies that say what a property asks for, and leave a way around it.
func TestPropertiesThatLookAsIf(t *testing.T) {
	prover := newProver(t)
	shop := changed(t, data(t, pods[0]), byDigest)
	if shop.Containers["web"] == nil {
		t.Fatal("the shop has no container web by digest")
	}
	settings := func(contents *policydata.Contents) policydata.Mount {
		return policydata.Mount{From: policydata.MountShared, Options: []string{"ro"}, Source: "settings", Type: "bind", Contents: contents}
	}
	bound := &policydata.Contents{Files: map[string]policydata.File{"a": {Mode: 0o444, SHA256: strings.Repeat("1", 64), Size: 1}}}
	alone := func(p *policydata.Policy) {
		for _, c := range p.Containers {
			c.Mounts = map[string]policydata.Mount{}
		}
		p.Containers["web"].Mounts["/settings"] = settings(bound)
	}
	for name, test := range map[string]struct {
		property string
		change   func(*policydata.Policy)
		want     prove.Verdict
	}{
		"by digest":                      {"only images by digest", func(*policydata.Policy) {}, prove.Proven},
		"images that are not compared":   {"only images by digest", func(p *policydata.Policy) { p.Strict.Image = policydata.Free }, prove.Refuted},
		"images that need not be pulled": {"only images by digest", func(p *policydata.Policy) { p.Strict.Image = policydata.Optional }, prove.Refuted},
		"an image that is called as the sandbox's": {"only images by digest", func(p *policydata.Policy) {
			p.Containers["web"].Image.Source, p.Containers["web"].Image.Digest = "pause", ""
		}, prove.Refuted},
		"layers that nothing binds": {"only images by digest", func(p *policydata.Policy) {
			p.Containers["web"].Image = policydata.Image{From: policydata.Layers}
		}, prove.Refuted},
		"known files": {"no host-filled mount", alone, prove.Proven},
		"known files that are not asked for": {"no host-filled mount", func(p *policydata.Policy) {
			alone(p)
			p.Strict.Mounts = policydata.Optional
		}, prove.Refuted},
		"fixed files that are not asked for": {"files of settings fixed", func(p *policydata.Policy) {
			alone(p)
			p.Strict.Mounts = policydata.Optional
		}, prove.Refuted},
		"files that are fixed in one place": {"files of /settings fixed", func(p *policydata.Policy) {
			alone(p)
			p.Containers["web"].Mounts["/other"] = settings(nil)
		}, prove.Refuted},
		"a volume in memory, by its name": {"container web cannot see volume mem", func(p *policydata.Policy) {
			alone(p)
			p.Containers["web"].Mounts["/m"] = bind("/run/kata-containers/sandbox/ephemeral/mem")
		}, prove.Refuted},
		"a volume in memory, by where it is in another container": {"container web cannot see volume /there", func(p *policydata.Policy) {
			alone(p)
			p.Containers["web"].Mounts["/m"] = bind("/run/kata-containers/sandbox/ephemeral/mem")
			other := *p.Containers["web"]
			other.Mounts = map[string]policydata.Mount{"/there": bind("/run/kata-containers/sandbox/ephemeral/mem")}
			p.Containers["other"] = &other
		}, prove.Refuted},
		"what the host shares, by its directory": {"no host-filled mount", func(p *policydata.Policy) {
			alone(p)
			p.Containers["web"].Mounts["/m"] = bind(p.Common.SharedDirs[0] + "/m")
		}, prove.Refuted},
		"a volume that is elsewhere in another container": {"container web cannot see volume /data", func(p *policydata.Policy) {
			alone(p)
			other := *p.Containers["web"]
			other.Mounts = map[string]policydata.Mount{"/data": settings(bound)}
			p.Containers["other"] = &other
		}, prove.Refuted},
	} {
		t.Run(name, func(t *testing.T) {
			asked, err := prove.ParseProperty(test.property)
			if err != nil {
				t.Fatal(err)
			}
			if r, err := prover.Holds(t.Context(), load(t, prover, changed(t, shop, test.change)), asked); err != nil || r.Verdict != test.want {
				t.Errorf("%+v (%v), want %s", r, err, test.want)
			}
		})
	}
}
