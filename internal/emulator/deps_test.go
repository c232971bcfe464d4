// SPDX-License-Identifier: Apache-2.0

package emulator_test

import (
	"os/exec"
	"strings"
	"testing"
)

// An emulator that knew the policy would send what the policy wants.
func TestEmulatorKnowsNothingOfPolicies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "portcullis/internal/emulator").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if len(deps) < 100 {
		t.Fatalf("only %d packages listed", len(deps))
	}
	for _, dep := range deps {
		if strings.HasPrefix(dep, "portcullis/rules") || strings.HasPrefix(dep, "portcullis/engine") {
			t.Errorf("the emulator imports %s", dep)
		}
	}
}
