// SPDX-License-Identifier: Apache-2.0

package binding_test

import (
	"fmt"
	"strings"
	"testing"

	"portcullis/agentproto"
	"portcullis/engine/binding"
)

// Where something is to be bound, not one request is allowed before, however much the default policy would allow: the few
// that are answered before (health, SetPolicy itself) are not decided here.
func TestNothingIsDecidedBeforeAPolicyIsSet(t *testing.T) {
	var everything strings.Builder
	everything.WriteString("package agent_policy\n")
	for entryPoint := range entryPoints() {
		fmt.Fprintf(&everything, "default %s := true\n", entryPoint)
	}
	p := newBench(t).start(binding.Config{Field: &field{}}, everything.String(), false)
	for entryPoint := range entryPoints() {
		if ok, err := p.judge(entryPoint, "{}"); ok || err == nil {
			t.Errorf("%s: allowed %t, %v", entryPoint, ok, err)
		}
	}
	if p.chain.Started() {
		t.Error("the chain says that something may run")
	}
}

func entryPoints() map[string]bool {
	names := map[string]bool{}
	for _, m := range agentproto.Methods() {
		names[m.EntryPoint()] = true
	}
	return names
}
