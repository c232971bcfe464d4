// SPDX-License-Identifier: Apache-2.0

package prove_test

import (
	"testing"

	"portcullis/internal/generatetest"
	"portcullis/rules/policydata"
	"portcullis/rules/prove"
)

// A directory that may be copied for an emptyDir is allowed by one policy only, and a request shows it; one that has the same is
// within.
func TestCopiedEmptyDirsAreCompared(t *testing.T) {
	made, _, err := generatetest.Policies(generatetest.Manifest(t, "../adversary/testdata/volumes.yaml"),
		generatetest.Settings(t, "peer-pods", "unordered"), generatetest.Images(t, "../generate/testdata/images.json"))
	if err != nil {
		t.Fatal(err)
	}
	with := func(copied string) *policydata.Policy {
		return changed(t, made[0], func(p *policydata.Policy) {
			m := p.Containers["reader"].Mounts["/in"]
			m.Copied = copied
			p.Containers["reader"].Mounts["/in"] = m
		})
	}
	was := made[0].Containers["reader"].Mounts["/in"].Copied
	prover := newProver(t)
	for _, c := range []struct {
		a, b string
		want prove.Verdict
	}{
		{was, was, prove.Proven}, {was, "", prove.Proven}, {"", was, prove.Refuted},
		{was, "^/run/kata-containers/shared/containers/sandbox-[a-z0-9]{16}-[a-z]+$", prove.Refuted},
	} {
		result, err := prover.Within(t.Context(), load(t, prover, with(c.a)), load(t, prover, with(c.b)))
		if err != nil || result.Verdict != c.want {
			t.Errorf("%q within %q: %v (%v), %+v", c.b, c.a, result.Verdict, err, result.Open)
		}
	}
}
