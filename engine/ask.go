// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/print"
)

// Inquiry is a question that a tool asks to follow a decision.
type Inquiry struct {
	Body   ast.Body            // evaluated as if it stood in the policy
	Input  ast.Value           // nil leaves input undefined
	Tracer topdown.QueryTracer // follows every expression, without the shortcuts that leave no trace; nil for none
	Print  print.Hook          // takes what the policy prints; nil for none
}

// Ask evaluates a body in the package of the active policy, in the first of the states that are possible, and gives the bindings
// of each solution. It decides nothing and changes nothing. Errors are those of [Engine.Judge], and a body that does not compile.
func (e *Engine) Ask(ctx context.Context, q Inquiry) ([]map[ast.Var]ast.Value, error) {
	w := e.world.Load()
	if w.policy == nil {
		return nil, ErrNoPolicy
	}
	return run(ctx, e.workers, nil, func(ctx context.Context) ([]map[ast.Var]ast.Value, error) {
		return w.policy.ask(ctx, w.data[0], q)
	})
}

func (p *Policy) ask(ctx context.Context, data *snapshot, q Inquiry) ([]map[ast.Var]ast.Value, error) {
	compiler := p.program.compiler
	if q.Print != nil {
		if compiler = p.program.printer(ctx); compiler == nil {
			return nil, context.Cause(ctx)
		}
	}
	module := p.program.module
	scope := compiler.QueryCompiler().WithContext(ast.NewQueryContext().WithPackage(module.Package).WithImports(module.Imports))
	if q.Print != nil {
		scope = scope.WithEnablePrintStatements(true)
	}
	body, err := scope.Compile(q.Body.Copy())
	if err != nil {
		return nil, fmt.Errorf("ask policy: %w", err)
	}
	cancel := topdown.NewCancel()
	defer context.AfterFunc(ctx, cancel.Cancel)()
	evaluation := topdown.NewQuery(body).WithQueryCompiler(scope).WithCompiler(compiler).
		WithStore(snapshots{}).WithTransaction(data).WithBaseCache(data).
		WithCancel(cancel).WithMetrics(metrics.NoOp()).WithPrintHook(q.Print)
	if q.Input != nil {
		evaluation = evaluation.WithInput(ast.NewTerm(q.Input))
	}
	if q.Tracer != nil {
		evaluation = evaluation.WithQueryTracer(q.Tracer).WithIndexing(false).WithEarlyExit(false)
	}
	names := scope.RewrittenVars()
	var solutions []map[ast.Var]ast.Value
	err = evaluation.Iter(ctx, func(r topdown.QueryResult) error {
		solution := map[ast.Var]ast.Value{}
		for v, term := range r {
			if name, ok := names[v]; ok {
				v = name
			}
			solution[v] = term.Value
		}
		solutions = append(solutions, solution)
		return nil
	})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrEvaluation, OneLine(err.Error(), 200))
	}
	return solutions, nil
}

// Rules are the parsed rules of that name, which the caller must not change.
func (p *Policy) Rules(name string) []*ast.Rule {
	var rules []*ast.Rule
	for _, rule := range p.program.module.Rules {
		if ruleName(rule) == name {
			rules = append(rules, rule)
		}
	}
	return rules
}
