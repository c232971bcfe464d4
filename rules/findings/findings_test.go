// SPDX-License-Identifier: Apache-2.0

package findings_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/findings"
)

// sources are the rules as package rules holds them.
func sources(t *testing.T) []findings.File {
	t.Helper()
	var files []findings.File
	for _, path := range []string{"requests", "policy", "state", "sandbox", "create", "process", "linux", "storage", "exec", "copyfile", "contents", "network"} {
		text, err := os.ReadFile(filepath.Join("..", path+".rego"))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, findings.File{Name: path + ".rego", Text: string(text)})
	}
	return files
}

// One line of the body of a rule that decides is one check.
var checkLine = regexp.MustCompile(`(?m)^\t([a-z_]+)_ok(\(.*\))?$`)

// body is where the rule that decides begins and ends in a file.
func body(text, request string) (begin, end int) {
	begin = strings.Index(text, "\n"+request)
	return begin, begin + strings.Index(text[begin:], "\n}\n")
}

// Whoever takes a check out of the rules takes what is said of it out as well: nothing else names it.
func TestWithoutACheckThereIsNoFindingOfIt(t *testing.T) {
	decides := map[string]string{
		"CreateContainerRequest": "create.rego", "ExecProcessRequest": "exec.rego", "CreateSandboxRequest": "sandbox.rego", "CopyFileRequest": "copyfile.rego",
	}
	tried := 0
	for request, file := range decides {
		whole, err := findings.Module(sources(t))
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range sources(t) {
			if f.Name != file {
				continue
			}
			begin, end := body(f.Text, request)
			for _, at := range checkLine.FindAllStringSubmatchIndex(f.Text[begin:end], -1) {
				files := sources(t)
				name := f.Text[begin+at[2] : begin+at[3]]
				files[i].Text = f.Text[:begin+at[0]] + f.Text[begin+at[1]:]
				text, err := findings.Module(files)
				if err != nil {
					t.Fatal(err)
				}
				check := checkName(request, name)
				if !says(whole, request, check) {
					t.Errorf("%s: no finding of %s", request, check)
				}
				if says(text, request, check) {
					t.Errorf("%s: without its check there is a finding of %s", request, check)
				}
				tried++
			}
		}
	}
	if tried < 30 {
		t.Errorf("only %d checks", tried)
	}
}

// checkName is what a check is called to people: without the family that all checks of a request have.
func checkName(request, name string) string {
	if request == "CreateContainerRequest" {
		return name
	}
	_, name, _ = strings.Cut(name, "_")
	return name
}

func says(module, request, check string) bool {
	return regexp.MustCompile(`(?m)^found\.` + request + ` contains (?:secret_)?finding\(\d+, "` + check + `",`).MatchString(module)
}

// The module defines nothing that the rules define and nothing that an agent asks, so that nothing in it, right or wrong, can
// decide: evaluation of a rule that decides never comes into it.
func TestFindingsDecideNothing(t *testing.T) {
	parse := func(text string) *ast.Module {
		module, err := ast.ParseModuleWithOpts("", text, ast.ParserOptions{RegoVersion: ast.RegoV0})
		if err != nil {
			t.Fatal(err)
		}
		return module
	}
	decides := map[string]bool{}
	for _, text := range []string{rules.Text(), rules.UpstreamText()} {
		for _, rule := range parse(text).Rules {
			decides[rule.Head.Ref()[0].Value.String()] = true
		}
	}
	own := map[string]bool{}
	for _, rule := range parse(rules.Reasons()).Rules {
		name := rule.Head.Ref()[0].Value.String()
		if own[name] = true; decides[name] || name[:1] != strings.ToLower(name[:1]) {
			t.Errorf("the findings define %s", name)
		}
	}
	for _, text := range []string{rules.Text(), rules.UpstreamText()} {
		if _, err := rulestest.New(text, []byte("{}")); err != nil {
			t.Errorf("the rules need the findings: %v", err)
		}
	}
}

// A rule of upstream.rego that is another alternative of one in the common files is named where that one stands.
func TestAlternativesAreNamedWhereTheRuleStands(t *testing.T) {
	text, err := os.ReadFile("../upstream.rego")
	if err != nil {
		t.Fatal(err)
	}
	module, err := ast.ParseModuleWithOpts("", string(text), ast.ParserOptions{RegoVersion: ast.RegoV0})
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, f := range sources(t) {
		if f.Name == "policy.rego" {
			continue
		}
		for _, rule := range module.Rules {
			name := rule.Head.Name.String()
			at := regexp.MustCompile(`(?m)^` + name + `\b`).FindStringIndex(f.Text)
			if at == nil {
				continue
			}
			comment := f.Text[strings.LastIndex(f.Text[:at[0]], "\n\n")+1 : at[0]]
			if tried++; !strings.Contains(comment, "upstream.rego") {
				t.Errorf("%s: nothing says above %s that upstream.rego adds to it", f.Name, name)
			}
		}
	}
	if tried < 3 {
		t.Errorf("only %d rules", tried)
	}
}

// What cannot be read is an error, not a rule without findings.
func TestFilesThatDoNotParseAreAnError(t *testing.T) {
	if _, err := findings.Module([]findings.File{{Name: "a.rego", Text: "package a\n\nx {"}}); err == nil {
		t.Error("no error")
	}
}
