// SPDX-License-Identifier: Apache-2.0

// Package findings reads off the rules why they deny a request. It writes a Rego module that is compiled beside them, in which
//
//	findings.<Request>  is the set of the conditions that failed, each an object of order, check, container, path, wanted, got
//	                    and secret: where in the request, what the policy wants there, what the request has
//	checks.<Request>    is the array of the checks with their results, [name, passed]
//	reasons.<Request>   is the set of the findings as sentences
//
// A check is a condition of the rule that decides; its name is that of the rule it asks, without _ok. What a finding says comes
// from the condition itself: of input.OCI.Process.Cwd == container.cwd the path is OCI.Process.Cwd, wanted is what the other
// side is. Conditions of rules and functions that a condition asks are looked into; of several alternatives those count whose
// conditions on the policy alone hold. Comments directly above a rule or a condition word what it does not say by itself:
//
//	# at: PATH          the path; what is in braces is evaluated
//	# item: PATH        of "every" and of a count: the path of one item, {item} where it has no name. $name is the path of a variable
//	# items: EXPR       the items that a condition is about, where that is not what it counts
//	# wanted: WORDS     what is wanted; if it is one expression in braces, its value
//	# one of: EXPR      wanted is any item of a list
//	# got: WORDS        what the request has
//	# absent: WORDS     what is wanted where the first argument of a function is not there
//	# unknown: WORDS    of object.subset: what is wanted of a key that the policy does not have
//	# says: WORDS       the finding is these words alone
//	# where             the condition says when its rule applies, and is no finding
//	# secret            values are not to be shown
//	# of the policy     what the rule gives is the policy's, though the request says which
//
// The module asks the rules and decides nothing.
package findings

import (
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// File is a source file of the rules.
type File struct {
	Name string // "network.rego"; a condition that stands in the rule that decides goes by it
	Text string
}

// Module returns the module, without its package clause and imports, for the rules in files. It fails if a file does not parse.
func Module(files []File) (string, error) {
	rules, err := read(files)
	if err != nil {
		return "", err
	}
	w := &writer{rules: rules}
	for _, name := range rules.requests {
		w.request(name)
	}
	return w.out.String(), nil
}

// ruleset is the rules by name.
type ruleset struct {
	named    map[string][]*rule
	requests []string        // names of the rules that decide, in order
	asks     map[string]bool // memory of dependsOnRequest
}

// rule is one definition, with the notes in the comments above it.
type rule struct {
	*ast.Rule
	file  string
	notes notes
	lines map[int]notes // notes above the line of a condition
}

// notes are what comments say: keyword -> words.
type notes map[string]string

var keywords = []string{"at", "item", "items", "wanted", "one of", "got", "absent", "unknown", "says", "where", "secret", "of the policy"}

func read(files []File) (*ruleset, error) {
	set := &ruleset{named: map[string][]*rule{}, asks: map[string]bool{}}
	for _, f := range files {
		module, err := ast.ParseModuleWithOpts(f.Name, f.Text, ast.ParserOptions{RegoVersion: ast.RegoV0})
		if err != nil {
			return nil, fmt.Errorf("read rules: %w", err)
		}
		lines := notesOf(module.Comments)
		for _, r := range module.Rules {
			name := r.Head.Name.String()
			if len(set.named[name]) == 0 && strings.ToUpper(name[:1]) == name[:1] && !strings.HasSuffix(name, "Response") {
				set.requests = append(set.requests, name)
			}
			set.named[name] = append(set.named[name], &rule{Rule: r, file: strings.TrimSuffix(f.Name, ".rego"), notes: lines[r.Location.Row], lines: lines})
		}
	}
	return set, nil
}

// notesOf gives each line the notes of the comments directly above it.
func notesOf(comments []*ast.Comment) map[int]notes {
	lines := map[int]notes{}
	for _, c := range comments {
		row := c.Location.Row
		n := lines[row] // of the comment above
		delete(lines, row)
		text := strings.TrimSpace(string(c.Text))
		for _, keyword := range keywords {
			if words, ok := strings.CutPrefix(text, keyword); ok && (words == "" || strings.HasPrefix(words, ": ")) {
				if n == nil {
					n = notes{}
				}
				n[keyword] = strings.TrimPrefix(words, ": ")
			}
		}
		if n != nil {
			lines[row+1] = n
		}
	}
	return lines
}

// dependsOnRequest says whether what a rule or function gives depends on the request or the state by itself.
func (s *ruleset) dependsOnRequest(name string) bool {
	if known, ok := s.asks[name]; ok {
		return known
	}
	s.asks[name] = false // where it asks itself
	for _, r := range s.named[name] {
		if _, ok := r.notes["of the policy"]; ok {
			continue
		}
		for next := r.Rule; next != nil; next = next.Else {
			ast.WalkRefs(next, func(ref ast.Ref) bool {
				head, _ := ref[0].Value.(ast.Var)
				if head == "input" || strings.HasPrefix(ref.String(), "data.pstate") || len(s.named[string(head)]) > 0 && s.dependsOnRequest(string(head)) {
					s.asks[name] = true
				}
				return s.asks[name]
			})
			ast.WalkVars(next, func(v ast.Var) bool {
				if string(v) != name && len(s.named[string(v)]) > 0 && s.dependsOnRequest(string(v)) {
					s.asks[name] = true
				}
				return s.asks[name]
			})
		}
	}
	return s.asks[name]
}
