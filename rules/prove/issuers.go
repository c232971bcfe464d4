// SPDX-License-Identifier: Apache-2.0

package prove

import (
	"maps"
	"slices"

	"portcullis/engine/fragment"
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
