// SPDX-License-Identifier: Apache-2.0

package project_test

import (
	"strings"
	"testing"
)

// What stands behind the packages that a program outside imports to make policies or to verify evidence: no daemon, no way
// into a guest, no command line, no doubles of tests.
func TestMakingPoliciesAndVerifyingLinkNoDaemon(t *testing.T) {
	forbidden := []string{"/engine/gate", "/engine/binding", "/engine/rest", "/engine/journal", "/cmd/", "/images/rootfs", "github.com/containerd/ttrpc", "github.com/coreos/go-systemd",
		"github.com/mdlayher/vsock", "github.com/spf13/cobra", "github.com/open-policy-agent/opa/v1/topdown"}
	for _, path := range []string{"./rules/generate", "./measure/evidence"} {
		deps := strings.Fields(run(t, root, "go", "list", "-deps", path))
		if len(deps) < 50 {
			t.Fatalf("%s: only %d packages listed", path, len(deps))
		}
		module := strings.TrimSuffix(deps[len(deps)-1], path[1:])
		for _, dep := range deps {
			own, isOwn := strings.CutPrefix(dep, module)
			if isOwn && own == "/engine/policytext" { // the parts of a policy's text; it is data, and links nothing
				continue
			}
			for _, bad := range forbidden {
				if isOwn && strings.HasPrefix(own, bad) || strings.HasPrefix(dep, bad) {
					t.Errorf("%s links %s", path, dep)
				}
			}
			if isOwn && strings.HasPrefix(own, "/internal/") && strings.HasSuffix(own, "test") {
				t.Errorf("%s links %s, a double for tests", path, dep)
			}
		}
	}
}
