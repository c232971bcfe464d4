// SPDX-License-Identifier: Apache-2.0

package generate_test

import (
	"os"
	"testing"

	"portcullis/internal/emulator"
	"portcullis/internal/emulator/emulatortest"
	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/policydata"
)

// nobodyTakes are manifests that a policy is made for and that no API server takes.
var nobodyTakes = map[string]bool{"unquoted-numbers": true, "createcontainer/sysctls": true}

// emulated are the lives of a manifest's pods, one of each workload.
func emulated(t *testing.T, file string, o emulator.Options) [][]rulestest.Request {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out [][]rulestest.Request
	for _, pod := range emulatortest.Pods(t, text, o) {
		out = append(out, pod.Requests)
	}
	return out
}

// allowsItsPods runs the lives of pods through the rules under their policies, in the compact form.
func allowsItsPods(t *testing.T, name string, made []*policydata.Policy, lives [][]rulestest.Request) {
	t.Helper()
	if len(lives) != len(made) {
		t.Fatalf("%d pods are emulated, %d policies made", len(lives), len(made))
	}
	for i, p := range made {
		data, err := p.JSON()
		if err != nil {
			t.Fatal(err)
		}
		judge, err := rulestest.New(rules.Text(), data, rules.Reasons())
		if err != nil {
			t.Fatal(err)
		}
		allowsLife(t, name, judge, lives[i])
	}
}

func allowsLife(t *testing.T, name string, judge *rulestest.Judge, life []rulestest.Request) {
	t.Helper()
	if r := emulatortest.Denied(t, judge, life); r != nil {
		t.Errorf("%s: %s of %v is denied: %s", name, r.Kind, r.Input["container_id"], why(t, judge, *r))
	}
}
