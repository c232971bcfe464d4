// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Query evaluates the document data.agent_policy.<path...> for people and tools: it decides nothing and changes nothing. The
// empty path is the whole package. An integer in path is an array index or a number, any other element a string, as in the
// URLs of OPA's REST API. A nil input leaves input undefined.
//
// The second result is false when the document is undefined, or when it differs between the states that are possible.
// Errors are those of [Engine.Judge].
func (e *Engine) Query(ctx context.Context, path []string, input ast.Value) (ast.Value, bool, error) {
	w := e.world.Load()
	if w.policy == nil {
		return nil, false, ErrNoPolicy
	}
	v, err := run(ctx, e.workers, nil, func(ctx context.Context) (ast.Value, error) {
		return w.document(ctx, path, input)
	})
	return v, v != nil, err
}

// document is nil where it is undefined or in doubt.
func (w *world) document(ctx context.Context, path []string, input ast.Value) (ast.Value, error) {
	var common ast.Value
	for i, data := range w.data {
		v, err := w.policy.document(ctx, data, path, input)
		if err != nil {
			return nil, err
		}
		if v == nil || i > 0 && v.Compare(common) != 0 {
			return nil, nil
		}
		common = v
	}
	return common, nil
}

func (p *Policy) document(ctx context.Context, data *snapshot, path []string, input ast.Value) (ast.Value, error) {
	if len(path) == 0 {
		q, err := prepare(p.program.compiler)
		if err != nil {
			return nil, err
		}
		return q.eval(ctx, evaluation{data: data, input: input})
	}
	en := p.program.entries[path[0]]
	if en == nil {
		return find(p.base.Value, path), nil
	}
	q, err := en.query()
	if err != nil {
		return nil, err
	}
	v, err := q.eval(ctx, evaluation{data: data, input: input})
	if err != nil || v == nil {
		return nil, err
	}
	return find(v, path[1:]), nil
}

// find gives what v holds at path, nil for nothing.
func find(v ast.Value, path []string) ast.Value {
	ref := make(ast.Ref, len(path))
	for i, key := range path {
		if n, err := strconv.ParseInt(key, 10, 64); err == nil {
			ref[i] = ast.InternedTerm(n)
			continue
		}
		ref[i] = ast.StringTerm(key)
	}
	found, err := v.Find(ref)
	if err != nil {
		return nil
	}
	return found
}
