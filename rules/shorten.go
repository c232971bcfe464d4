// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"regexp"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// shorten gives the local variables of each rule of a module names of one letter. A policy carries the text of the rules, and people
// read the files.
func shorten(text string) string {
	module, err := ast.ParseModuleWithOpts("rules", text, ast.ParserOptions{RegoVersion: ast.RegoV0})
	if err != nil {
		panic("rules: " + err.Error())
	}
	global := map[string]bool{"input": true, "data": true}
	for _, r := range module.Rules {
		global[string(r.Head.Name)] = true
	}
	lines := strings.SplitAfter(text, "\n")
	var out strings.Builder
	next := 0 // line of what is not yet written
	for i, r := range module.Rules {
		end := len(lines)
		if i+1 < len(module.Rules) {
			end = module.Rules[i+1].Location.Row - 1
		}
		out.WriteString(strings.Join(lines[next:r.Location.Row-1], ""))
		out.WriteString(rename(strings.Join(lines[r.Location.Row-1:end], ""), localsOf(r, global)))
		next = end
	}
	return out.String()
}

// localsOf are the variables of a rule that stand for nothing outside it.
func localsOf(r *ast.Rule, global map[string]bool) map[string]bool {
	locals := map[string]bool{}
	ast.WalkTerms(r, func(t *ast.Term) bool {
		if v, ok := t.Value.(ast.Var); ok && !v.IsGenerated() && !v.IsWildcard() && !global[string(v)] {
			locals[string(v)] = true
		}
		return false
	})
	for name := range ast.BuiltinMap { // which are called by a reference that begins with a variable
		head, _, _ := strings.Cut(name, ".")
		delete(locals, head)
	}
	return locals
}

// frequent are letters, those first that there are many of in the text of the rules: they compress best.
const frequent = "esntoiracdlpuhmgfbvwyxkqjz"

// token is a string, or a name that is not the field of another.
var token = regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.)*\"|`[^`]*`|\\.?[A-Za-z_]\\w*")

// rename replaces names by letters, in the order in which they first appear, as far as letters go.
func rename(rule string, names map[string]bool) string {
	letters := map[string]string{}
	return token.ReplaceAllStringFunc(rule, func(word string) string {
		if !names[word] {
			return word
		}
		if letters[word] == "" && len(letters) < len(frequent) {
			letters[word] = frequent[len(letters) : len(letters)+1]
		}
		if letter := letters[word]; letter != "" {
			return letter
		}
		return word
	})
}
