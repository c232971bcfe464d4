// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"portcullis/rules/settings"
)

// anything is the pattern of a value that is not bound.
const anything = `(?s:.*)`

// lateSecret returns what is known of a variable from a Secret that was not given, since only the cluster has it: its hash,
// or, where the settings say so, nothing. It returns false for everything else.
func (b *builder) lateSecret(r reference, key string) (value, bool, error) {
	if r.kind != "Secret" {
		return nil, false, nil
	}
	if _, given := b.generator.configs.find(r.kind, b.pod.namespace(), r.name); given {
		return nil, false, nil
	}
	shape := b.settings().Generate
	name := r.name + "/" + key
	for _, known := range []string{b.pod.namespace() + "/" + name, name} {
		if hash, ok := shape.SecretHashes[known]; ok && shape.Secrets != settings.SecretsRefuse {
			b.warn(r.field, fmt.Sprintf("is bound by the hash of Secret %s in generate.secret_hashes; kata-agent without the gate cannot compare it", known))
			return hidden(hash), true, nil
		}
	}
	switch {
	case r.optional && shape.Secrets != settings.SecretsUnbound:
		return nil, false, nil
	case shape.Secrets == settings.SecretsUnbound:
		b.warn(r.field, fmt.Sprintf("takes key %s of Secret %s, which was not given: the variable is bound by its name alone, and the host may choose its value", key, r.name))
		return value{{pattern: anything, mayMiss: r.optional}}, true, nil
	case shape.Secrets == settings.SecretsHash:
		return nil, false, b.pod.fault(r.field, fmt.Sprintf("takes key %s of Secret %s, which was not given; add its manifest with --config-file, "+
			"or the SHA-256 of the value to the settings' generate.secret_hashes as %q", key, r.name, name))
	}
	return nil, false, b.pod.fault(r.field, fmt.Sprintf("refers to Secret %s, which was not given; add its manifest with --config-file, "+
		"or, where only the cluster has it, see generate.secrets in the settings", r.name))
}

// bound is the content of a key of a ConfigMap or Secret as the settings want it bound.
func (b *builder) bound(r reference, content []byte) value {
	if r.kind != "Secret" {
		return text(string(content))
	}
	if b.settings().Generate.Secrets == settings.SecretsRefuse {
		b.warn(r.field, fmt.Sprintf("takes its value from Secret %s, and the policy has it in clear; generate.secrets = \"hash\" in the settings binds it unseen", r.name))
		return text(string(content))
	}
	b.warn(r.field, fmt.Sprintf("is bound by the hash of what Secret %s holds, from which a short value can be guessed; kata-agent without the gate cannot compare it", r.name))
	sum := sha256.Sum256(content)
	return hidden(hex.EncodeToString(sum[:]))
}
