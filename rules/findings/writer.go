// SPDX-License-Identifier: Apache-2.0

package findings

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// writer writes the module.
type writer struct {
	rules *ruleset
	out   strings.Builder
	order int // findings so far: they come in the order of the conditions
	names int // local variables so far
}

// scope is where a condition stands.
type scope struct {
	request string
	check   string
	body    []string            // what leads to it: bindings, and conditions on the policy alone
	names   map[ast.Var]ast.Var // local variables as the module calls them
	paths   map[ast.Var]string  // what a variable's value is called in the request, a Rego expression
	asks    map[ast.Var]bool    // variables that depend on the request
	lines   map[int]notes
	secret  bool
}

func (s scope) with(body ...string) scope {
	s.body = append(append([]string{}, s.body...), body...)
	return s
}

// inner is a scope with variables of its own.
func (s scope) inner() scope {
	s.names, s.paths, s.asks = clone(s.names), clone(s.paths), clone(s.asks)
	return s
}

func clone[K comparable, V any](m map[K]V) map[K]V {
	out := make(map[K]V, len(m)+1)
	for k, v := range m {
		out[k] = v
	}
	return out
}

// request writes the findings, checks and reasons of a rule that decides.
func (w *writer) request(name string) {
	var results []string
	before, about := w.order, 0
	for _, r := range w.rules.named[name] {
		prefix := familyOf(r)
		s := scope{request: name, lines: r.lines}
		for _, expr := range r.Body {
			check, isRule := checkOf(expr)
			c := s
			if c.check = strings.TrimPrefix(check, prefix); !isRule {
				c.check = r.file
			}
			if s = w.step(c, s, expr); !isRule {
				continue
			}
			if results = append(results, fmt.Sprintf(`{"name": %q, "passed": %s}`, c.check, w.holds(s, expr))); about == 0 {
				about = w.order
			}
		}
	}
	if w.order > before {
		w.conclude(name, results, about)
	}
}

// conclude writes what is made of the findings: only those of checks that failed count and, where a check failed that comes
// first and finds what the request is about, only those of it. Conditions that stand in the rule itself are checks by themselves.
func (w *writer) conclude(name string, results []string, about int) {
	if len(results) < 2 {
		fmt.Fprintf(&w.out, "findings.%[1]s := found.%[1]s\n\n", name)
	} else {
		fmt.Fprintf(&w.out, "checks.%s := [%s]\n\n", name, strings.Join(results, ", "))
		fmt.Fprintf(&w.out, "findings.%[1]s := conclusion(checks.%[1]s, found.%[1]s, %[2]d)\n\n", name, about)
	}
	fmt.Fprintf(&w.out, "reasons.%[1]s contains sentence(f) if some f in findings.%[1]s\n\n", name)
}

// checkOf is the name of the check that a condition asks.
func checkOf(expr *ast.Expr) (string, bool) {
	if expr.Negated {
		return "", false
	}
	name, _ := asked(expr)
	return strings.CutSuffix(name, "_ok")
}

// familyOf is what the names of all checks of a rule begin with: "exec_".
func familyOf(r *rule) string {
	prefix, n := "", 0
	for _, expr := range r.Body {
		name, ok := checkOf(expr)
		if !ok {
			continue
		}
		family, _, _ := strings.Cut(name, "_")
		if n++; n == 1 {
			prefix = family + "_"
		}
		if !strings.HasPrefix(name, prefix) {
			return ""
		}
	}
	if n < 2 {
		return ""
	}
	return prefix
}

// step deals with one expression of a body, in scope c, and gives the scope of those behind it, which is s or grows from it.
func (w *writer) step(c, s scope, expr *ast.Expr) scope {
	n := s.lines[expr.Location.Row]
	if expr.IsAssignment() {
		return w.assign(s, expr)
	}
	_, isCheck := checkOf(expr)
	if _, ok := n["where"]; ok || len(n) == 0 && !isCheck && !w.depends(s, expr) {
		return s.with(w.text(s, expr))
	}
	w.condition(c, expr, n)
	return s
}

// assign binds the variables of an assignment.
func (w *writer) assign(s scope, expr *ast.Expr) scope {
	left, right := expr.Operand(0), expr.Operand(1)
	asks, text := w.depends(s, right), w.termText(s, right)
	path, known := w.path(s, right)
	s = s.inner()
	ast.WalkVars(left, func(v ast.Var) bool {
		s.names[v], s.asks[v] = w.name(v), asks
		delete(s.paths, v)
		if known && left.Value.Compare(v) == 0 {
			s.paths[v] = path
		}
		return false
	})
	return s.with(w.termText(s, left) + " := " + text)
}

func (w *writer) name(v ast.Var) ast.Var {
	w.names++
	return ast.Var(fmt.Sprintf("%s_%d", strings.Trim(string(v), "$"), w.names))
}

// finding is what is said of a condition that failed, each a Rego expression.
type finding struct{ path, wanted, got string }

// emit writes one finding.
func (w *writer) emit(s scope, f finding, failing ...string) {
	w.order++
	body := append(append([]string{}, s.body...), failing...)
	name := "finding"
	if s.secret {
		name = "secret_finding"
	}
	fmt.Fprintf(&w.out, "found.%s contains %s(%d, %q, %s, %s, %s) if { %s }\n\n",
		s.request, name, w.order, s.check, cmp.Or(f.path, `""`), cmp.Or(f.wanted, "null"), cmp.Or(f.got, "null"), strings.Join(body, "; "))
}

// holds is a Rego expression that is whether a condition holds.
func (w *writer) holds(s scope, expr *ast.Expr) string {
	return "count([1 | " + w.text(s, expr) + "]) > 0"
}

// failing is a Rego condition that holds where another does not.
func (w *writer) failing(s scope, expr *ast.Expr) string {
	if expr.Negated {
		positive := expr.Copy()
		positive.Negated = false
		return w.text(s, positive)
	}
	if _, ok := expr.Terms.(*ast.Every); ok {
		return "count([1 | " + w.text(s, expr) + "]) == 0"
	}
	return "not " + w.text(s, expr)
}

func (w *writer) text(s scope, expr *ast.Expr) string {
	expr = expr.Copy()
	rename(s, expr)
	return expr.String()
}

func (w *writer) termText(s scope, term *ast.Term) string {
	term = term.Copy()
	rename(s, term)
	return term.String()
}

// rename gives local variables the names that they have in the module. What is renamed only serves to be written.
func rename(s scope, x any) {
	ast.WalkTerms(x, func(t *ast.Term) bool {
		if v, ok := t.Value.(ast.Var); ok {
			if name, ok := s.names[v]; ok {
				t.Value = name
			}
		}
		return false
	})
}

func quote(text string) string {
	out, err := json.Marshal(text)
	if err != nil {
		panic("findings: " + err.Error()) // a string has a JSON form
	}
	return string(out)
}
