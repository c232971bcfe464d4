// SPDX-License-Identifier: Apache-2.0

package prove

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/rules"
	"portcullis/rules/policydata"
)

func parsed(t *testing.T) *ast.Module {
	t.Helper()
	module, err := ast.ParseModuleWithOpts("rules.rego", rules.Text(), ast.ParserOptions{RegoVersion: ast.RegoV0})
	if err != nil {
		t.Fatal(err)
	}
	return module
}

// A check without a comparison would be a hole in every proof.
func TestEveryCheckHasAComparison(t *testing.T) {
	checks := checksOf(t)
	if len(checks) < 35 {
		t.Fatalf("only %d checks were found", len(checks))
	}
	for _, check := range lacking(checkNames(), checks) {
		t.Errorf("check %s has no comparison", check)
	}
	for i, name := range checkNames() { // and each that were missing would be missed
		others := slices.Delete(checkNames(), i, i+1)
		if missed := slices.Equal(lacking(others, checks), []string{name}); missed != slices.Contains(checks, name) {
			t.Errorf("without the comparison of %s: it is missed: %v", name, missed)
		}
	}
}

// checksOf are the checks that entry points ask, sorted. They have their names in the files, and short ones in the text.
func checksOf(t *testing.T) []string {
	t.Helper()
	var entries, found []string
	for _, e := range rules.Entries() {
		entries = append(entries, e.Request)
	}
	var all []*ast.Rule
	files, err := filepath.Glob("../*.rego")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, ast.MustParseModuleWithOpts(string(text), ast.ParserOptions{RegoVersion: ast.RegoV0}).Rules...)
	}
	for _, rule := range all {
		if !slices.Contains(entries, string(rule.Head.Name)) {
			continue
		}
		for _, expr := range rule.Body {
			var name string
			switch terms := expr.Terms.(type) {
			case *ast.Term:
				name = terms.String()
			case []*ast.Term:
				name = terms[0].String()
			}
			if check, ok := strings.CutSuffix(name, "_ok"); ok {
				found = append(found, check)
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// What is no address for the rules may be left out of a comparison only while they say so in these very patterns.
func TestTheRulesHaveThePatternsOfAddresses(t *testing.T) {
	for _, pattern := range []string{addressV4, addressV6, loopbackV6, mappedV6, hardwareAddress.String(), notZero.String()} {
		if !strings.Contains(rules.Text(), "`"+pattern+"`") {
			t.Errorf("the rules have no pattern %s", pattern)
		}
	}
}

// notRead are fields of policy_data that decide nothing, and those that say how another is read.
var notRead = []string{"version", "containers[].image.digest", "containers[].image.layers", "containers[].vfio"}

func covered(path string) bool {
	for _, m := range modules {
		for _, read := range append(slices.Clone(m.reads), notRead...) {
			if path == read || strings.HasPrefix(path, read+".") || strings.HasPrefix(path, read+"[]") {
				return true
			}
		}
	}
	return false
}

func TestEveryFieldOfPolicyDataIsCompared(t *testing.T) {
	var walk func(at string, of reflect.Type)
	walk = func(at string, of reflect.Type) {
		switch {
		case covered(at):
		case of.Kind() == reflect.Pointer:
			walk(at, of.Elem())
		case of.Kind() == reflect.Map && at == "containers":
			walk(at+"[]", of.Elem())
		case of.Kind() == reflect.Struct:
			for i := range of.NumField() {
				name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
				if name == "" {
					name = of.Field(i).Name
				}
				walk(strings.TrimPrefix(at+"."+name, "."), of.Field(i).Type)
			}
		default:
			t.Errorf("no comparison reads %s", at)
		}
	}
	walk("", reflect.TypeFor[policydata.Policy]())
}

// The other way around: what the rules ask of the policy is in the table.
func TestEveryFieldThatTheRulesReadIsCompared(t *testing.T) {
	heads := map[string]string{"policy": "", "container": "containers[].", rules.WithNames("exec_container"): "containers[]."}
	n := 0
	ast.WalkRefs(parsed(t), func(ref ast.Ref) bool {
		head, ok := ref[0].Value.(ast.Var)
		before, known := heads[string(head)]
		if !ok || !known || len(ref) < 2 {
			return false
		}
		path := before
		for i, term := range ref[1:] {
			key, ok := term.Value.(ast.String)
			if !ok {
				break
			}
			if i > 0 {
				path += "."
			}
			path += string(key)
		}
		n++
		if !covered(path) && path != "containers" && path != "" && !strings.HasSuffix(path, ".") && !prefixOfRead(path) {
			t.Errorf("the rules read %s, no comparison does", path)
		}
		return false
	})
	if n < 50 {
		t.Fatalf("only %d fields were found", n)
	}
}

// prefixOfRead: a whole object that is read, each of whose fields has its comparison.
func prefixOfRead(path string) bool {
	for _, m := range modules {
		for _, read := range m.reads {
			if strings.HasPrefix(read, path+".") {
				return true
			}
		}
	}
	return false
}
