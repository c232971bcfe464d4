// SPDX-License-Identifier: Apache-2.0

package generate

// issuers names in the policy who may update it: of each issuer what is about a container of this pod, or about one that it lacks.
func (b *builder) issuers() {
	for _, issuer := range b.generator.options.Issuers {
		all := issuer.May
		issuer.May = nil
		for _, may := range all {
			name, field, err := may.Target()
			if _, has := b.policy.Containers[name]; err == nil && has == (field != "") {
				issuer.May = append(issuer.May, may)
			}
		}
		if len(issuer.May) > 0 {
			b.policy.Issuers = append(b.policy.Issuers, issuer)
		}
	}
}
