// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// What policyd must not link: what only the tools need.
var foreign = []string{
	"github.com/google/go-containerregistry", "github.com/containerd/containerd", "k8s.io/", "sigs.k8s.io/yaml", "go.yaml.in/yaml",
	"gopkg.in/yaml", "github.com/google/go-sev-guest/verify", "github.com/google/go-sev-guest/validate",
	"github.com/google/go-tdx-guest/verify", "github.com/google/go-tdx-guest/validate", "github.com/spf13/cobra",
	"portcullis/measure/evidence", "portcullis/rules/generate", "portcullis/images", "portcullis/internal/agenttest",
	"portcullis/internal/hostdatatest", "portcullis/internal/measuretest", "testing",
	"github.com/sigstore", "oras.land", "github.com/transparency-dev", "portcullis/rules/policydata", "portcullis/rules/prove",
	"portcullis/internal/squeeze", "github.com/andybalholm/brotli",
	"github.com/open-policy-agent/opa/v1/rego", // which links OPA's compiler to WebAssembly, planner and bundles
}

// linkedByOPA is what OPA itself links.
var linkedByOPA = map[string]bool{"sigs.k8s.io/yaml": true, "go.yaml.in/yaml/v2": true, "go.yaml.in/yaml/v3": true}

func TestPolicydLinksOnlyWhatTheGuestNeeds(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range strings.Fields(string(out)) {
		for _, bad := range foreign {
			if strings.HasPrefix(pkg, bad) && !linkedByOPA[pkg] {
				t.Errorf("policyd links %s", pkg)
			}
		}
	}
}

// maxBinary is the largest stripped policyd, in bytes.
const maxBinary = 22_500_000

func TestPolicydStaysSmall(t *testing.T) {
	info, err := os.Stat(buildPolicyd(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("policyd is %d bytes, stripped", info.Size())
	if info.Size() > maxBinary {
		t.Errorf("policyd is %d bytes, at most %d are allowed", info.Size(), maxBinary)
	}
}

func TestTheRootPackagesDoNotImportOneAnother(t *testing.T) {
	roots := []string{"agentproto", "engine", "hostdata", "images", "measure", "rules"}
	text := regexp.MustCompile(`^engine/policytext$`)
	allowed := map[string]*regexp.Regexp{ // what docs/architecture.md says, beside cmd
		"engine/gate":      regexp.MustCompile(`^(agentproto|measure/record$)`),
		"measure/evidence": regexp.MustCompile(`^(hostdata/initdata|engine/fragment)$`),
		"engine/binding":   regexp.MustCompile(`^measure(/eventlog|/record)?$`),
		"rules":            text,
		"rules/policydata": regexp.MustCompile(`^engine/(policytext|fragment)$`),
		"rules/generate":   regexp.MustCompile(`^(images(/verity)?|hostdata/initdata|engine/(policytext|fragment))$`),
		"rules/explain":    regexp.MustCompile(`^engine(/policytext)?$`),    // it evaluates
		"rules/learn":      regexp.MustCompile(`^engine(/trace|/replay)?$`), // it judges recorded requests
		"rules/prove":      regexp.MustCompile(`^engine(/policytext|/fragment|/narrow)?$`),
		// Both make the policy of a manifest once more, and compile what is in its annotation.
		"rules/admission":         regexp.MustCompile(`^(engine|images|hostdata/initdata)$`),
		"rules/admission/webhook": regexp.MustCompile(`^(engine|hostdata/initdata)$`),
		"rules/review":            regexp.MustCompile(`^engine(/policytext|/fragment)?$`),
	}
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "portcullis/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		words := strings.Fields(strings.ReplaceAll(line, "portcullis/", ""))
		from := words[0]
		if strings.HasPrefix(from, "images/rootfs/guesttest") { // programs that only the guest test runs
			continue
		}
		root, _, _ := strings.Cut(from, "/")
		for _, to := range words[1:] {
			target, _, _ := strings.Cut(to, "/")
			if root == target || !isOneOf(roots, root) || !isOneOf(roots, target) {
				continue
			}
			if targets := allowed[from]; targets == nil || !targets.MatchString(to) {
				t.Errorf("%s imports %s", from, to)
			}
		}
	}
}

func isOneOf(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}
