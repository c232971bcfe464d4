// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/topdown"

	"portcullis/internal/wait"
)

// reasonsRule is the rule by which a policy explains its denials.
const reasonsRule = "reasons"

// program is compiled rules without their data, so that several policies can share it.
type program struct {
	module   *ast.Module
	caps     *ast.Capabilities
	prints   bool // whether any rule calls print
	compiler *ast.Compiler
	entries  map[string]*entry

	reasons  func() *query // data.agent_policy.reasons; nil if there is no such rule
	late     *lateReasons  // not part of module; nil for none
	printing printing
}

// printing is the rules once more, with prints left in: compiled in the background when first asked for, so that a denial waits
// for them no longer than it may.
type printing struct {
	start    sync.Once
	ready    chan struct{} // closed when compiler is set, or is known to stay nil
	compiler *ast.Compiler
}

// entry is one rule name of the package with what is prepared and known of it.
type entry struct {
	name      string
	query     func() (*query, error) // data.agent_policy.<name>
	reason    func() *query          // data.agent_policy.reasons.<name>; nil if it does not compile
	printing  func() *query          // query with prints left in, once program.printing is ready; nil if it does not compile
	footprint func() *footprint
	late      explanation // where the program's reasons are late
}

// compile fills in everything but the identity of the program. Prints are erased.
func (p *program) compile() error {
	compiler, err := p.compileModule(false)
	if err != nil {
		return err
	}
	p.compiler = compiler
	p.entries = map[string]*entry{}
	for _, rule := range compiler.Modules[moduleName].Rules {
		name := ruleName(rule)
		if name == "" || len(rule.Head.Args) > 0 || p.entries[name] != nil {
			continue
		}
		p.entries[name] = &entry{
			name:      name,
			query:     sync.OnceValues(func() (*query, error) { return prepare(compiler, name) }),
			reason:    sync.OnceValue(func() *query { return p.explain(name) }),
			printing:  sync.OnceValue(func() *query { return prepareOrNil(p.printing.compiler, name) }),
			footprint: sync.OnceValue(func() *footprint { return footprintOf(compiler, name, reasonsRule) }),
			late:      explanation{ready: make(chan struct{})},
		}
	}
	p.reasons = sync.OnceValue(func() *query { return p.explain() })
	p.printing.ready = make(chan struct{})
	return nil
}

const moduleName = "policy.rego"

func (p *program) compileModule(prints bool) (*ast.Compiler, error) {
	c := ast.NewCompiler().WithCapabilities(p.caps).WithEnablePrintStatements(prints)
	c.Compile(map[string]*ast.Module{moduleName: p.module})
	if c.Failed() {
		return nil, c.Errors
	}
	return c, nil
}

// withPrints is en's query with prints left in, or nil if there is none or ctx ends before it is compiled.
func (p *program) withPrints(ctx context.Context, en *entry) *query {
	if p.printer(ctx) == nil {
		return nil
	}
	return en.printing()
}

// printer is the compiler of the rules with prints left in, or nil if ctx ends before it has compiled them.
func (p *program) printer(ctx context.Context) *ast.Compiler {
	p.printing.start.Do(func() {
		go func() {
			defer close(p.printing.ready)
			var err error // without prints the same rules compiled, so it is of no interest
			defer recoverTo(&err, ErrCompilePanic)
			p.printing.compiler, err = p.compileModule(true)
		}()
	})
	if wait.For(ctx, p.printing.ready) != nil {
		return nil
	}
	return p.printing.compiler
}

// explain prepares the reasons rule, whole or below the given keys. It is nil when the policy has none.
func (p *program) explain(keys ...string) *query {
	if p.entries[reasonsRule] == nil {
		return nil
	}
	return prepareOrNil(p.compiler, append([]string{reasonsRule}, keys...)...)
}

// ruleName is the first element of what a rule defines: "reasons" for reasons[x] := y.
func ruleName(rule *ast.Rule) string {
	name, _ := rule.Head.Ref()[0].Value.(ast.Var)
	return string(name)
}

// callsPrint says whether any rule of the parsed module calls print.
func callsPrint(module *ast.Module) bool {
	found := false
	ast.WalkExprs(module, func(e *ast.Expr) bool {
		if e.IsCall() && e.Operator().Equal(ast.Print.Ref()) {
			found = true
		}
		return found
	})
	return found
}

// query is one prepared reference into the policy. It is evaluated by OPA's topdown itself: package rego would bring a compiler
// to WebAssembly, a planner and bundles into the guest.
type query struct {
	body     ast.Body
	context  ast.QueryCompiler // of body
	compiler *ast.Compiler
}

// result is the variable that a query's body unifies with the document asked for.
const result = ast.Var("result")

func prepare(compiler *ast.Compiler, path ...string) (*query, error) {
	ref := policyPackage.Copy()
	for _, key := range path {
		ref = ref.Append(ast.StringTerm(key))
	}
	context := compiler.QueryCompiler()
	body, err := context.Compile(ast.NewBody(ast.Equality.Expr(ast.NewTerm(ref), ast.NewTerm(result))))
	if err != nil {
		return nil, fmt.Errorf("prepare %v: %w", path, err)
	}
	return &query{body, context, compiler}, nil
}

func prepareOrNil(compiler *ast.Compiler, path ...string) *query {
	if compiler == nil {
		return nil
	}
	q, err := prepare(compiler, path...)
	if err != nil {
		return nil
	}
	return q
}

// eval gives the value of the query, nil when it is undefined. It stops soon after ctx ends, except inside a single builtin.
func (q *query) eval(ctx context.Context, in evaluation) (ast.Value, error) {
	cancel := topdown.NewCancel()
	defer context.AfterFunc(ctx, cancel.Cancel)()
	evaluation := topdown.NewQuery(q.body).
		WithQueryCompiler(q.context).
		WithCompiler(q.compiler).
		WithStore(snapshots{}).
		WithTransaction(in.data).
		WithBaseCache(in.data).
		WithCancel(cancel).
		WithMetrics(metrics.NoOp()).
		WithPrintHook(in.hook).
		WithStrictBuiltinErrors(in.strict)
	if in.input != nil {
		evaluation = evaluation.WithInput(ast.NewTerm(in.input))
	}
	var values []ast.Value
	err := evaluation.Iter(ctx, func(r topdown.QueryResult) error {
		values = append(values, r[result].Value)
		return nil
	})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrEvaluation, OneLine(err.Error(), 200))
	}
	if len(values) != 1 {
		return nil, nil
	}
	return values[0], nil
}
