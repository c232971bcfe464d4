// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine"
)

// checks holds each condition of the rule that decides by itself. Where several
// rules could have allowed the request, it is the one that came furthest.
func (s *session) checks() ([]Check, error) {
	var best []Check
	most := -1
	for _, rule := range s.policy.Rules(s.kind) {
		if rule.Default {
			continue
		}
		checks := s.checkBody(rule.Body)
		if n := leading(checks); n > most {
			best, most = checks, n
		}
	}
	return best, s.ctx.Err()
}

// leading counts the checks before the first that did not pass.
func leading(checks []Check) int {
	for i, c := range checks {
		if c.Result != Passed {
			return i
		}
	}
	return len(checks)
}

func (s *session) checkBody(body ast.Body) []Check {
	var checks []Check
	for i, expr := range body {
		if isPrint(expr) || isDeclaration(expr) {
			continue
		}
		checks = append(checks, Check{Name: exprName(expr), Result: s.checkExpr(body, i)})
	}
	return checks
}

// checkExpr evaluates a condition alone or, when it uses variables of those before it, together with them.
func (s *session) checkExpr(body ast.Body, i int) Result {
	rs, err := s.query(engine.Inquiry{Body: ast.NewBody(body[i].Copy())})
	if err == nil {
		return resultOf(len(rs) > 0)
	}
	before, err := s.query(engine.Inquiry{Body: body[:i].Copy()})
	if i > 0 && (err != nil || len(before) == 0) {
		return NotReached
	}
	rs, err = s.query(engine.Inquiry{Body: body[:i+1].Copy()})
	return resultOf(err == nil && len(rs) > 0)
}

func resultOf(passed bool) Result {
	if passed {
		return Passed
	}
	return Failed
}

func isPrint(expr *ast.Expr) bool { return expr.IsCall() && expr.Operator().Equal(ast.Print.Ref()) }

// isDeclaration says whether expr gives a name to something, and checks nothing.
func isDeclaration(expr *ast.Expr) bool {
	if _, ok := expr.Terms.(*ast.SomeDecl); ok {
		return true
	}
	return expr.IsAssignment()
}

// exprName is the name of the rule that a condition asks, else its text.
func exprName(expr *ast.Expr) string {
	switch terms := expr.Terms.(type) {
	case *ast.Term:
		if name, ok := terms.Value.(ast.Var); ok {
			return string(name)
		}
	case []*ast.Term:
		if ref, ok := terms[0].Value.(ast.Ref); ok && len(ref) == 1 && !expr.IsEquality() {
			return ref.String()
		}
	}
	if expr.Location != nil && len(expr.Location.Text) > 0 {
		return oneLine(string(expr.Location.Text))
	}
	return expr.String()
}

// oneLine folds white space and bounds the length.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(printable(text)), " ")
	if runes := []rune(text); len(runes) > 120 {
		return string(runes[:119]) + "…"
	}
	return text
}

// printable has no character that a terminal acts on: requests and prints hold what the host likes.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return ' '
		}
		return r
	}, text)
}
