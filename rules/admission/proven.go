// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"context"
	"errors"
	"fmt"

	"portcullis/rules/prove"
)

// lacks lists what the floor requires and a policy is not proven to have, in words: what is unknown is not proven.
func (j *Judge) lacks(ctx context.Context, text []byte) ([]string, error) {
	if len(j.proven) == 0 {
		return nil, nil
	}
	j.proving.Lock()
	defer j.proving.Unlock()
	policy, err := j.prover.Load(ctx, text)
	if errors.Is(err, prove.ErrRules) {
		return []string{"the cluster requires proofs, and nothing can be proven of rules that are not this release's"}, nil
	}
	if err != nil {
		return nil, err
	}
	defer policy.Close()
	var out []string
	for _, property := range j.proven {
		r, err := j.prover.Holds(ctx, policy, property)
		if err != nil {
			return nil, err
		}
		switch r.Verdict {
		case prove.Refuted:
			out = append(out, fmt.Sprintf("it has not %q: %s: %s", property.Name, r.Witness.Path, r.Witness.Says))
		case prove.Unknown:
			out = append(out, fmt.Sprintf("it is not proven to have %q: %s: %s", property.Name, r.Open[0].Path, r.Open[0].Says))
		}
	}
	return out, nil
}
