// SPDX-License-Identifier: Apache-2.0

package findings

import (
	"regexp"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// part is what in a note is not to be taken as it stands: an expression in braces, or the path of a variable.
var part = regexp.MustCompile(`\{(?:[^{}]|\{[^{}]*\})*\}|\$[a-z_]+`)

// phrase makes a note into a Rego expression: the value of its only expression, or words.
func (w *writer) phrase(s scope, words string) string {
	if at := part.FindStringIndex(words); at != nil && at[0] == 0 && at[1] == len(words) && words[0] == '{' {
		return w.expression(s, words[1:len(words)-1])
	}
	return `{"phrase": ` + w.join(s, words) + `}`
}

// join is a note as a Rego expression that is a string.
func (w *writer) join(s scope, words string) string {
	var parts []string
	literal := func(text string) {
		if text != "" {
			parts = append(parts, quote(text))
		}
	}
	for at := part.FindStringIndex(words); at != nil; at = part.FindStringIndex(words) {
		literal(words[:at[0]])
		switch found := words[at[0]:at[1]]; {
		case found[0] == '$' && s.paths[ast.Var(found[1:])] != "":
			parts = append(parts, s.paths[ast.Var(found[1:])])
		case found[0] == '$':
			literal(found)
		default:
			parts = append(parts, "said("+w.expression(s, found[1:len(found)-1])+")")
		}
		words = words[at[1]:]
	}
	literal(words)
	if len(parts) == 1 {
		return parts[0]
	}
	return `concat("", [` + strings.Join(parts, ", ") + "])"
}

// expression is Rego in a note, in the words of the module.
func (w *writer) expression(s scope, text string) string {
	body, err := ast.ParseBody("value := " + text)
	if err != nil || len(body) != 1 {
		panic("findings: a note has no expression: " + text) // a test reads all rules
	}
	return w.termText(s, body[0].Operand(1))
}

// plain is what a step of a path is written as behind a dot; other names stand in brackets.
var plain = regexp.MustCompile(`^[0-9A-Za-z_]+$`)

func stepOf(key string) string {
	if plain.MatchString(key) {
		return "." + key
	}
	return "[" + key + "]"
}

// path is what a term's value is called in the request, a Rego expression. It is not known of values that are computed.
func (w *writer) path(s scope, term *ast.Term) (string, bool) {
	switch v := term.Value.(type) {
	case ast.Var:
		if path, ok := s.paths[v]; ok {
			return path, true
		}
		return w.rulePath(v, nil)
	case ast.Ref:
		return w.refPath(s, v)
	case ast.Call:
		switch v[0].String() {
		case "object.get":
			if base, ok := w.path(s, v[1]); ok {
				return w.extend(s, base, v[2])
			}
		case "sort", "object.remove":
			return w.path(s, v[1])
		}
	}
	return "", false
}

func (w *writer) refPath(s scope, ref ast.Ref) (string, bool) {
	head, ok := ref[0].Value.(ast.Var)
	if !ok {
		return "", false
	}
	base, known := s.paths[head]
	switch {
	case known:
	case head == "input":
		if len(ref) == 1 {
			return `""`, true
		}
		first, ok := ref[1].Value.(ast.String)
		if !ok {
			return "", false
		}
		base, ref = quote(string(first)), ref[1:]
	default:
		return w.rulePath(head, ref[1:])
	}
	for _, key := range ref[1:] {
		if base, ok = w.extend(s, base, key); !ok {
			return "", false
		}
	}
	return base, true
}

// extend goes one step on from a path.
func (w *writer) extend(s scope, base string, key *ast.Term) (string, bool) {
	switch k := key.Value.(type) {
	case ast.String:
		return merge(base, quote(stepOf(string(k)))), true
	case ast.Number, ast.Var:
		return merge(base, "step("+w.termText(s, key)+")"), true
	}
	return "", false
}

// merge joins two Rego expressions that are strings, literals at once.
func merge(a, b string) string {
	if strings.HasPrefix(a, `"`) && strings.HasPrefix(b, `"`) {
		return a[:len(a)-1] + b[1:]
	}
	return `concat("", [` + a + ", " + b + "])"
}

// rulePath is the path of a rule with one value, or of a member of it.
func (w *writer) rulePath(name ast.Var, keys []*ast.Term) (string, bool) {
	named := w.rules.named[string(name)]
	if len(named) == 0 || len(named[0].Head.Args) > 0 {
		return "", false
	}
	r := named[0]
	if at, ok := r.notes["at"]; ok {
		return quote(at), len(keys) == 0
	}
	if len(named) > 1 || r.Else != nil || r.Head.Value == nil {
		return "", false
	}
	s := scope{lines: r.lines}
	for _, expr := range r.Body {
		if expr.IsAssignment() {
			s = w.assign(s, expr)
		}
	}
	value := r.Head.Value
	for _, key := range keys {
		object, ok := value.Value.(ast.Object)
		if !ok || object.Get(key) == nil {
			return "", false
		}
		value = object.Get(key)
	}
	return w.path(s, value)
}

// somePath is the path of the first of an expression's terms that has one.
func (w *writer) somePath(s scope, expr *ast.Expr) (term *ast.Term, path string) {
	ast.WalkTerms(expr, func(t *ast.Term) bool {
		if path != "" {
			return true
		}
		if p, ok := w.path(s, t); ok && p != `""` {
			term, path = t, p
			return true
		}
		return false
	})
	return term, path
}

// depends says whether a condition or term asks of the request or the state, or only of the policy.
func (w *writer) depends(s scope, x any) bool {
	found := false
	ast.WalkTerms(x, func(t *ast.Term) bool {
		if ref, ok := t.Value.(ast.Ref); ok && strings.HasPrefix(ref.String(), "data.pstate") {
			found = true
		}
		if v, ok := t.Value.(ast.Var); ok {
			local, known := s.asks[v]
			found = found || v == "input" || local || !known && len(w.rules.named[string(v)]) > 0 && w.rules.dependsOnRequest(string(v))
		}
		return found
	})
	return found
}
