// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/rules"
)

// A policy carries the text, so names are short; those stay by which the rules are asked, or which people are told.
func TestNamesAreShortUnlessAsked(t *testing.T) {
	asked := []string{"pod_complete", "policy", "container"}
	for form, text := range map[string]string{"ours": rules.Text(), "upstream": rules.UpstreamText()} {
		module, err := ast.ParseModuleWithOpts(form, text, ast.ParserOptions{RegoVersion: ast.RegoV0})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range module.Rules {
			if name := string(r.Head.Name); len(name) > 2 && !slices.Contains(asked, name) && name[0] >= 'a' {
				t.Errorf("%s: %s is long", form, name)
			}
		}
	}
}

// A short name may mean another rule in another release, whose text then goes without our reasons.
func TestReasonsOfOtherRulesHaveLongNames(t *testing.T) {
	if rules.ReasonsOf([]byte(rules.Text())) != rules.Reasons() || rules.ReasonsOf([]byte(rules.UpstreamText())) != rules.Reasons() {
		t.Error("our own rules have other reasons")
	}
	other := rules.ReasonsOf([]byte(rules.Text() + "\n"))
	if !strings.Contains(other, "container_names") || strings.Contains(rules.Reasons(), "container_names") {
		t.Error("reasons of other rules have short names, or ours have long ones")
	}
}
