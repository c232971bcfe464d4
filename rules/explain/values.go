// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Value is a term of an expression with what it stood for.
type Value struct {
	Term  string `json:"term"` // as the policy writes it
	Value any    `json:"value"`
}

// values are what the terms of a failed expression stood for, in its order: references to the request, to the policy's data, and
// to variables that have a name. Literals speak for themselves.
func (s *session) values(f failure) []Value {
	body, err := ast.ParseBodyWithOpts(string(f.expr.Location.Text), ast.ParserOptions{AllFutureKeywords: true, RegoVersion: ast.RegoV0})
	if err != nil {
		return nil
	}
	var out []Value
	seen := map[string]bool{}
	add := func(term string, ref ast.Ref) {
		if seen[term] {
			return
		}
		seen[term] = true
		if v, ok := s.resolve(f, ref); ok {
			out = append(out, Value{Term: term, Value: v})
		}
	}
	visitor := ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.Expr:
			if terms, ok := x.Terms.([]*ast.Term); ok && len(terms) > 0 {
				for _, argument := range terms[1:] { // not the name of what is called
					visitTerm(argument, add)
				}
				return true
			}
		case *ast.Term:
			visitTerm(x, add)
			return true
		}
		return false
	})
	visitor.Walk(body)
	return out
}

func visitTerm(t *ast.Term, add func(string, ast.Ref)) {
	switch v := t.Value.(type) {
	case ast.Ref:
		add(v.String(), v)
	case ast.Var:
		add(string(v), ast.Ref{t})
	case ast.Call:
		for _, argument := range v[1:] {
			visitTerm(argument, add)
		}
	}
}

// resolve follows a reference from what it begins with; its keys may be names themselves.
func (s *session) resolve(f failure, ref ast.Ref) (any, bool) {
	head, ok := ref[0].Value.(ast.Var)
	if !ok || head.IsWildcard() {
		return nil, false
	}
	var value any
	var err error
	switch name := string(head); {
	case name == "input":
		value = s.input
	case f.names[name] != nil:
		value, err = plainValue(f.names[name])
	default:
		if value, err = s.eval(name); value == nil {
			return nil, false
		}
	}
	known := err == nil
	for _, term := range ref[1:] {
		if !known {
			return nil, false
		}
		key := ast.Value(term.Value)
		if name, isVar := key.(ast.Var); isVar {
			key = f.names[string(name)]
		}
		value, known = step(value, key)
	}
	return value, known
}

// step goes one key into decoded JSON. What is not there is a value too: nothing.
func step(v any, key ast.Value) (any, bool) {
	switch key := key.(type) {
	case ast.String:
		return at(v, string(key)), true
	case ast.Number:
		i, ok := key.Int()
		if l := list(v); ok && i >= 0 && i < len(l) {
			return l[i], true
		}
		return nil, true
	}
	return nil, false
}

// valueWords writes values for a reader: "a = 1, b = [2]".
func valueWords(values []Value) string {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = v.Term + " = " + Words(v.Value)
	}
	return strings.Join(words, ", ")
}
