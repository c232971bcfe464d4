// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"
	"strings"
	"unicode"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// maxEvents bounds what is kept of one evaluation.
const maxEvents = 200_000

// trail follows an evaluation and keeps where it failed. It implements topdown.QueryTracer.
type trail struct {
	kind     string
	prints   *[]string
	parents  map[uint64]uint64 // query -> the query that asked it
	rules    map[uint64]string // query -> rule, of the nearest rule around it
	entered  map[uint64]int    // query -> prints before it
	failures []failure
	last     map[uint64]int // query -> prints at its last failure
}

// failure is one expression that did not hold.
type failure struct {
	query        uint64
	rule         string
	index        int // of the expression in its body
	expr         *ast.Expr
	locals       []ast.Value
	names        map[string]ast.Value // those that the policy gives a name to
	printsBefore int                  // at the failure before it in the same query
	prints       int                  // until now
	order        int
}

// Enabled implements topdown.QueryTracer.
func (t *trail) Enabled() bool { return true }

// Config implements topdown.QueryTracer.
func (t *trail) Config() topdown.TraceConfig { return topdown.TraceConfig{PlugLocalVars: true} }

// TraceEvent implements topdown.QueryTracer.
func (t *trail) TraceEvent(e topdown.Event) {
	switch e.Op {
	case topdown.EnterOp:
		t.enter(e)
	case topdown.FailOp:
		expr, ok := e.Node.(*ast.Expr)
		if !ok || expr.Location == nil || len(t.failures) >= maxEvents {
			return
		}
		f := failure{query: e.QueryID, rule: t.rules[e.QueryID], index: expr.Index, expr: expr, prints: len(*t.prints), order: len(t.failures)}
		f.printsBefore = t.last[e.QueryID]
		t.last[e.QueryID] = f.prints
		if e.Locals != nil {
			f.names = map[string]ast.Value{}
			e.Locals.Iter(func(key, v ast.Value) bool {
				f.locals = append(f.locals, v)
				if name, ok := key.(ast.Var); ok && e.LocalMetadata[name].Name != "" {
					f.names[string(e.LocalMetadata[name].Name)] = v
				}
				return false
			})
		}
		t.failures = append(t.failures, f)
	}
}

func (t *trail) enter(e topdown.Event) {
	t.parents[e.QueryID] = e.ParentID
	t.entered[e.QueryID] = len(*t.prints)
	t.rules[e.QueryID] = t.rules[e.ParentID]
	if rule, ok := e.Node.(*ast.Rule); ok {
		if name, ok := rule.Head.Ref()[0].Value.(ast.Var); ok {
			t.rules[e.QueryID] = string(name)
		}
	}
}

// depth counts the queries around a query.
func (t *trail) depth(query uint64) int {
	n := 0
	for parent, ok := t.parents[query]; ok && parent != query; parent, ok = t.parents[parent] {
		query = parent
		n++
	}
	return n
}

// mentions says whether one of the failure's variables holds the container.
func (t *trail) mentions(f failure, container any) bool {
	if container == nil {
		return false
	}
	want, err := ast.InterfaceToValue(container)
	if err != nil {
		return false
	}
	for _, v := range f.locals {
		if _, ok := v.(ast.Object); ok && v.Compare(want) == 0 {
			return true
		}
	}
	return false
}

// leaf goes down from a failure to the expression that caused it: of what the failed expression asked, the try that got furthest.
func (t *trail) leaf(f failure) failure {
	if f.expr.Negated {
		return f
	}
	best, most, found := f, [3]int{}, false
	for _, c := range t.failures[t.begin(f):f.order] {
		if t.parents[c.query] != f.query {
			continue
		}
		l := t.leaf(c)
		far := [3]int{c.prints - t.entered[c.query], c.index, l.index} // who prints tells best how far it got
		if !found || slices.Compare(far[:], most[:]) >= 0 {
			best, most, found = l, far, true
		}
	}
	if found {
		return best
	}
	if first, ok := t.remembered(f); ok {
		return t.leaf(first)
	}
	return f
}

// remembered finds where a rule without arguments failed when it was asked for the first time in this evaluation: the second time
// its value is known, and it leaves no trail.
func (t *trail) remembered(f failure) (next failure, found bool) {
	term, ok := f.expr.Terms.(*ast.Term)
	if !ok {
		return next, false
	}
	ref, ok := term.Value.(ast.Ref)
	if !ok || len(ref) == 0 {
		return next, false
	}
	name, ok := ref[len(ref)-1].Value.(ast.String)
	if !ok || string(name) == f.rule {
		return next, false
	}
	for _, c := range t.failures[:f.order] {
		if c.rule == string(name) && t.rules[t.parents[c.query]] != c.rule && (!found || c.index >= next.index) {
			next, found = c, true
		}
	}
	return next, found
}

// begin is where the evaluation of the failed expression began: behind the last failure of the same query.
func (t *trail) begin(f failure) int {
	for i := f.order - 1; i >= 0; i-- {
		if t.failures[i].query == f.query {
			return i + 1
		}
	}
	return 0
}

// enumerates says whether the expression only goes through a list, which then is empty.
func (f failure) enumerates() bool { return strings.HasPrefix(string(f.expr.Location.Text), "some ") }

// isAbout says whether the expression, or the name of its rule, names a field.
func (f failure) isAbout(field string) bool {
	words := strings.FieldsFunc(string(f.expr.Location.Text), func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	return slices.ContainsFunc(words, func(word string) bool { return strings.EqualFold(word, field) }) ||
		strings.Contains(strings.ReplaceAll(f.rule, "_", ""), strings.TrimSuffix(strings.ToLower(field), "s"))
}

// holds says whether a variable of the failure has the value.
func (f failure) holds(value any) bool {
	switch v := value.(type) {
	case nil, bool:
		return false
	case string:
		if v == "" {
			return false
		}
	}
	want, err := ast.InterfaceToValue(value)
	if err != nil {
		return false
	}
	for _, v := range f.locals {
		if v.Compare(want) == 0 {
			return true
		}
	}
	return false
}
