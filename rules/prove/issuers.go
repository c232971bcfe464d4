// SPDX-License-Identifier: Apache-2.0

package prove

import (
	"maps"
	"slices"

	"portcullis/engine/fragment"
	"portcullis/rules/policydata"
)

// compareIssuers: what the policy may become. No request shows it, so that a difference leaves the proof open.
func compareIssuers(c *comparison) {
	for i := range c.b.Issuers {
		b := &c.b.Issuers[i]
		at := slices.IndexFunc(c.a.Issuers, func(a fragment.Issuer) bool { return a.Line() == b.Line() })
		if at < 0 {
			c.differ("issuers", b.Line()+" may update one only")
			continue
		}
		if !b.Within(c.a.Issuers[at]) {
			c.differ("issuers", b.Line()+" may set more in one")
		}
		for _, name := range slices.Sorted(maps.Keys(c.a.Containers)) {
			if _, kept := c.b.Containers[name]; !kept && b.MayMake(name) {
				c.differ("issuers", b.Line()+" may make a container "+name+" in one only: the other has it")
			}
		}
	}
}

// updated compares what the policies may become, if they differ in nothing so far: without the fields that b's issuers may set. A
// value in one of these hides what is common to all containers, such as a variable that each has fixed. No request shows it.
func (p *Prover) updated(c *comparison) error {
	if len(c.b.Issuers) == 0 || len(c.differences) > 0 {
		return nil
	}
	a, err := bare(c.a, c.b.Issuers)
	if err != nil {
		return err
	}
	b, err := bare(c.b, c.b.Issuers)
	if err != nil {
		return err
	}
	became := p.compare(a, b)
	c.check = "issuers"
	for _, d := range became.differences {
		c.differ(d.Path, d.Says+", once an issuer sets what is left out here")
	}
	return became.err
}

// bare is a policy without what issuers may set; a container that they may make is like each that there is.
func bare(p *policydata.Policy, issuers []fragment.Issuer) (*policydata.Policy, error) {
	out, err := copyOf(p)
	if err != nil {
		return nil, err
	}
	out.Common.Capabilities[""] = policydata.Capabilities{}
	for i := range issuers {
		for _, may := range issuers[i].May {
			name, field, err := may.Target()
			if err != nil {
				return nil, err
			}
			if c := out.Containers[name]; c != nil && field != "" {
				leaveOut(c, field)
				continue
			}
			for like, c := range p.Containers {
				made := *c
				for _, field := range fragment.Fields {
					leaveOut(&made, field)
				}
				out.Containers[name+" like "+like] = &made
			}
		}
	}
	return out, nil
}

// leaveOut takes a field from a container; one that has commands keeps one that nothing lists.
func leaveOut(c *policydata.Container, field string) {
	switch field {
	case "args":
		c.Args, c.ArgMatches = nil, nil
	case "capabilities":
		c.Capabilities = ""
	case "cwd":
		c.Cwd = ""
	case "env":
		c.Env = policydata.Env{}
	case "exec":
		c.Exec = [][]string{{"\x00"}}
	case "image":
		c.Image, c.OCI.Annotations.ImageName = policydata.Image{}, ""
	case "mounts":
		c.Mounts = nil
	}
}
