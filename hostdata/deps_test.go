// SPDX-License-Identifier: Apache-2.0

package hostdata_test

import (
	"os/exec"
	"strings"
	"testing"
)

// What is linked into the guest stays small and without side effects: of the TEE libraries only layouts and formats, no clients
// (which register global flags), no signature verification, no test code.
func TestDependencies(t *testing.T) {
	const root = "portcullis/"
	packages := []string{root + "hostdata", root + "hostdata/initdata", root + "internal/hostdatatest"}
	out, err := exec.Command("go", append([]string{"list", "-deps"}, packages...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if len(deps) < 50 {
		t.Fatalf("only %d packages listed", len(deps))
	}
	exact := map[string]bool{
		"flag": true, "testing": true, "net/http": true,
		"github.com/google/go-sev-guest/client":   true,
		"github.com/google/go-sev-guest/verify":   true,
		"github.com/google/go-sev-guest/validate": true,
		"github.com/google/go-sev-guest/testing":  true,
		"github.com/google/go-tdx-guest/client":   true,
		"github.com/google/go-tdx-guest/abi":      true,
	}
	prefixes := []string{"k8s.io/", "sigs.k8s.io/", "go.yaml.in/", "gopkg.in/yaml", "github.com/google/go-containerregistry",
		"github.com/google/go-configfs-tsm", "github.com/google/go-tpm", "github.com/open-policy-agent/"}
	for _, dep := range deps {
		if exact[dep] {
			t.Errorf("%s is linked", dep)
		}
		for _, prefix := range prefixes {
			if strings.HasPrefix(dep, prefix) {
				t.Errorf("%s is linked", dep)
			}
		}
		inside, ok := strings.CutPrefix(dep, root)
		if ok && inside != "hostdata" && !strings.HasPrefix(inside, "hostdata/") && !strings.HasPrefix(inside, "internal/") {
			t.Errorf("%s is another root", dep)
		}
	}
}
