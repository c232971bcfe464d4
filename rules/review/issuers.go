// SPDX-License-Identifier: Apache-2.0

package review

import (
	"fmt"
	"strings"

	"portcullis/engine/fragment"
	"portcullis/rules/policydata"
)

// updates says of each issuer what its fragments may make of the policy.
func updates(p *policydata.Policy) []string {
	var out []string
	for i := range p.Issuers {
		issuer := &p.Issuers[i]
		for _, may := range issuer.May {
			out = append(out, fmt.Sprintf("%s set by signed fragments of feed %s from svn %d on, by %s", mayWords(may), issuer.Feed, issuer.MinimumSVN, issuer.ID()))
		}
	}
	return out
}

// mayWords is a path with its bounds.
func mayWords(m fragment.May) string {
	words := m.Path
	for _, bound := range []struct {
		name   string
		values []string
	}{{"registries", m.Registries}, {"capabilities", m.Capabilities}, {"mounts", m.Mounts}} {
		if len(bound.values) > 0 {
			words += fmt.Sprintf(" (%s %s)", bound.name, strings.Join(bound.values, ", "))
		}
	}
	return words
}
