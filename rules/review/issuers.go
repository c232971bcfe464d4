// SPDX-License-Identifier: Apache-2.0

package review

import (
	"fmt"
	"strings"

	"portcullis/engine/fragment"
)

// issuer says what the fragments of an issuer may make of the policy.
func (s *speaker) issuer(i *fragment.Issuer) {
	for n, words := range updates(i) {
		s.mayAs(fmt.Sprintf("issuer %q %q %q %q %d %q %+v", i.DID, i.Key, i.Root, i.Subject, i.MinimumSVN, i.Feed, i.May[n]), words)
	}
}

// updates says of each thing that an issuer's fragments may set how far.
func updates(i *fragment.Issuer) []string {
	var out []string
	for _, may := range i.May {
		out = append(out, fmt.Sprintf("%s set by signed fragments of feed %s from svn %d on, by %s", mayWords(may), i.Feed, i.MinimumSVN, i.ID()))
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
