// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"regexp"
	"strings"
	"testing"

	"portcullis/rules/policydata"
)

func TestNamesOfPodsAreThoseThatKubernetesGives(t *testing.T) {
	long := strings.Repeat("x", 57)
	dep := workloadNames(t, "apps/v1", "Deployment", "name: web.shop", deploymentSpec)
	depLong := workloadNames(t, "apps/v1", "Deployment", "name: "+strings.Repeat("d", 52), deploymentSpec)
	for _, c := range []struct {
		promise, pattern, name string
		want                   bool
	}{
		{"a deployment's pod has two suffixes", dep, "web.shop-5d9b8c7f6d-x2xzz", true},
		{"a dot is a dot", dep, "webxshop-5d9b8c7f6d-x2xzz", false},
		{"nothing before the name", dep, "a-web.shop-5d9b8c7f6d-x2xzz", false},
		{"nothing behind the suffix", dep, "web.shop-5d9b8c7f6d-x2xzz-more", false},
		{"vowels are never generated", dep, "web.shop-5d9b8c7f6d-aeiou", false},
		{"a long deployment's pod with a short hash keeps the dash", depLong, strings.Repeat("d", 52) + "-bcdf-x2xzz", true},
		{"a long deployment's pod with a long hash is cut", depLong, strings.Repeat("d", 52) + "-5d9b8x2xzz", true},
		{"a generated name has a suffix", workloadNames(t, "v1", "Pod", "generateName: job-", podSpec), "job-x2xzz", true},
		{"a long generated name is cut", workloadNames(t, "v1", "Pod", "generateName: "+long+"yz-", podSpec), long + "yx2xzz", true},
		{"a stateful set counts", workloadNames(t, "apps/v1", "StatefulSet", "name: db", deploymentSpec), "db-10", true},
		{"a stateful set's pods have numbers only", workloadNames(t, "apps/v1", "StatefulSet", "name: db", deploymentSpec), "db-x2xzz", false},
		{"a job of a cron job", workloadNames(t, "batch/v1", "CronJob", "name: c", "  jobTemplate: {spec: {template: {spec: {containers: [{name: a, image: b}]}}}}\n"), "c-29123456-x2xzz", true},
		{"an indexed job has the index", workloadNames(t, "batch/v1", "Job", "name: j", "  completionMode: Indexed\n  completions: 11\n  template: {spec: {containers: [{name: a, image: b}]}}\n"), "j-10-x2xzz", true},
		{"an indexed job has no other digits", workloadNames(t, "batch/v1", "Job", "name: j", "  completionMode: Indexed\n  completions: 10\n  template: {spec: {containers: [{name: a, image: b}]}}\n"), "j-10-x2xzz", false},
	} {
		if err := policydata.Anchored(c.pattern); err != nil {
			t.Errorf("%s: %v", c.promise, err)
		}
		if got := regexp.MustCompile(c.pattern).MatchString(c.name); got != c.want {
			t.Errorf("%s: %q matches %s: %v, want %v", c.promise, c.name, c.pattern, got, c.want)
		}
	}
}

const (
	podSpec        = "  containers: [{name: a, image: b}]\n"
	deploymentSpec = "  template: {spec: {containers: [{name: a, image: b}]}}\n"
)

func workloadNames(t *testing.T, apiVersion, kind, meta, spec string) string {
	t.Helper()
	m, err := Parse("test", []byte("apiVersion: "+apiVersion+"\nkind: "+kind+"\nmetadata: {"+meta+"}\nspec:\n"+spec), ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return m.Pods()[0].names.pattern()
}

// The cases are those of Kubernetes' own expansion.
func TestVariablesExpandAsInKubernetes(t *testing.T) {
	vars := variables{"VAR_A": text("A"), "VAR_B": text("B"), "VAR_REF": text("$(VAR_A)"), "VAR_EMPTY": text(""), "NAME": placeholder(sandboxName)}
	for in, want := range map[string]string{
		"$(VAR_A)":                 "A",
		"___$(VAR_B)___":           "___B___",
		"$(VAR_A)$(VAR_B)":         "AB",
		"$$(VAR_A)_$(VAR_A)":       "$(VAR_A)_A",
		"$$$(VAR_A)":               "$A",
		"$$$$(VAR_A)":              "$$(VAR_A)",
		"$$$$$$$(VAR_A)":           "$$$A",
		"f000-$(VAR_REF)":          "f000-$(VAR_A)",
		"foo$(VAR_EMPTY)bar":       "foobar",
		"$(VAR_DNE)":               "$(VAR_DNE)",
		"$(VAR_A":                  "$(VAR_A",
		"$VAR_A":                   "$VAR_A",
		"$":                        "$",
		"foo$":                     "foo$",
		"$(":                       "$(",
		"$()":                      "$()",
		"\n$(VAR_A)":               "\nA",
		"$(VAR_A)$(":               "A$(",
		"foo$$(foo$(VAR_A)":        "foo$(fooA",
		"$(VAR_C)$(VAR_A":          "$(VAR_C)$(VAR_A",
		"$?_boo_$(VAR_A)":          "$?_boo_A",
		"$VAR_A)_$(VAR_B)":         "$VAR_A)_B",
		"$(VAR_DNE)$$$(VAR_A)-$$$": "$(VAR_DNE)$A-$$",
	} {
		got, known := vars.expand(in, nil).literal()
		if !known || got != want {
			t.Errorf("%q expands to %q, want %q", in, got, want)
		}
	}
	v := vars.expand("x-$(NAME)", nil)
	if template, ok := v.template(); !ok || template != "x-$(sandbox-name)" {
		t.Errorf("template is %q, %v", template, ok)
	}
	// Text that looks like a placeholder must not become one.
	if template, ok := vars.expand("$$(sandbox-name)$(NAME)", nil).template(); ok {
		t.Errorf("literal text became the template %q", template)
	}
}
