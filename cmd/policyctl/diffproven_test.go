// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

// TestDiffTellsWhatIsShownAndNoValues: which policy is looser, by which request, and what a variable holds nowhere.
func TestDiffTellsWhatIsShownAndNoValues(t *testing.T) {
	const pod = `containers: [{name: web, image: "registry.example/web:1", env: [{name: PASSWORD, value: "%s"}]}]`
	old, next := policyOf(t, strings.Replace(pod, "%s", "correct-horse", 1), ""), policyOf(t, strings.Replace(pod, "%s", "battery-staple", 1), "", "logs")
	diff, _, _ := policyctl("diff", old, next)
	prove, _, _ := policyctl("prove", "--equal", old, next)
	for _, said := range []string{"shown: B allows what A does not: ", "shown: A allows what B does not: containers[web].env.PASSWORD, by "} {
		if !strings.Contains(diff, said) {
			t.Errorf("it does not say %q:\n%s", said, diff)
		}
	}
	if !strings.Contains(prove, "PASSWORD") || strings.Contains(diff+prove, "horse") || strings.Contains(diff+prove, "staple") {
		t.Errorf("what PASSWORD holds is told:\n%s%s", diff, prove)
	}
	logs := policyOf(t, strings.Replace(pod, "%s", "correct-horse", 1), "", "logs")
	if diff, _, _ = policyctl("diff", logs, old); !strings.Contains(diff, "proven: B allows nothing that A does not; a SetPolicy from A to B only narrows\n") {
		t.Errorf("it does not say that less is allowed:\n%s", diff)
	}
}
