package explain

import (
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// maxEvents bounds what is kept of one evaluation.
const maxEvents = 200_000

// trail follows an evaluation and keeps where it failed. It implements
// topdown.QueryTracer.
type trail struct {
	kind     string
	prints   *[]string
	parents  map[uint64]uint64 // query -> the query that asked it
	rules    map[uint64]string // query -> rule, of the nearest rule around it
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
	printsBefore int // at the failure before it in the same query
	prints       int // until now
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
		if t.last == nil {
			t.last = map[uint64]int{}
		}
		f.printsBefore = t.last[e.QueryID]
		t.last[e.QueryID] = f.prints
		if e.Locals != nil {
			e.Locals.Iter(func(_, v ast.Value) bool {
				f.locals = append(f.locals, v)
				return false
			})
		}
		t.failures = append(t.failures, f)
	}
}

func (t *trail) enter(e topdown.Event) {
	t.parents[e.QueryID] = e.ParentID
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

// leaf goes down from a failure to the expression that caused it: in what the
// failed expression asked, the one that got furthest.
func (t *trail) leaf(f failure) failure {
	for {
		if f.expr.Negated {
			return f
		}
		next, found := failure{}, false
		for _, c := range t.failures[t.begin(f):f.order] {
			if t.parents[c.query] == f.query && (!found || c.index >= next.index) {
				next, found = c, true
			}
		}
		if !found {
			return f
		}
		f = next
	}
}

// begin is where the evaluation of the failed expression began: behind the last
// failure of the same query.
func (t *trail) begin(f failure) int {
	for i := f.order - 1; i >= 0; i-- {
		if t.failures[i].query == f.query {
			return i + 1
		}
	}
	return 0
}

// about is the text of the expression and of its rule's name, in lower case.
func (f failure) about() string {
	return strings.ToLower(string(f.expr.Location.Text) + " " + strings.ReplaceAll(f.rule, "_", ""))
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

// inputOf is the place in the request that the expression names, if it names one.
func (f failure) inputOf(input any) (string, any) {
	path, got := "", any(nil)
	ast.WalkRefs(f.expr, func(ref ast.Ref) bool {
		if path == "" && ref.HasPrefix(ast.InputRootRef) && ref.IsGround() && len(ref) > 1 {
			got = input
			var names []string
			for _, term := range ref[1:] {
				name, _ := term.Value.(ast.String)
				names = append(names, string(name))
				got = at(got, string(name))
			}
			path = strings.Join(names, ".")
		}
		return false
	})
	return path, got
}
