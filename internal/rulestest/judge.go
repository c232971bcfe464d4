// SPDX-License-Identifier: Apache-2.0

// Package rulestest helps to test policies: it evaluates the rules through OPA's library, makes the requests that a runtime sends
// for a policy, and changes them one leaf at a time.
package rulestest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
)

// Request is one request to the agent, as the policy sees it.
type Request struct {
	Kind  string         // entry point, "CreateContainerRequest"
	Input map[string]any // every field present
}

// Decision is what a policy says to a request.
type Decision struct {
	Allowed bool
	Ops     []Op
}

// Op is one change of the state, a JSON Patch operation below /pstate.
type Op struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// Judge holds one policy and its state. It is not safe for concurrent use.
type Judge struct {
	compiler *ast.Compiler
	store    storage.Store
	queries  map[string]rego.PreparedEvalQuery
}

// New compiles a policy text, with further modules of its package. Data, if not
// nil, is loaded as policy_data beside it, as a guest does with the compact form.
func New(text string, data []byte, more ...string) (*Judge, error) {
	modules := map[string]*ast.Module{}
	for i, source := range append([]string{text}, more...) {
		name := fmt.Sprintf("agent_policy-%d.rego", i)
		module, err := ast.ParseModuleWithOpts(name, source, ast.ParserOptions{RegoVersion: ast.RegoV0})
		if err != nil {
			return nil, fmt.Errorf("parse rules: %w", err)
		}
		modules[name] = module
	}
	compiler := ast.NewCompiler()
	if compiler.Compile(modules); compiler.Failed() {
		return nil, fmt.Errorf("compile rules: %w", compiler.Errors)
	}
	return (&Judge{compiler: compiler}).Under(data)
}

// Under is a judge by the same rules, compiled once, with other policy_data and no state.
func (j *Judge) Under(data []byte) (*Judge, error) {
	root := map[string]any{"pstate": map[string]any{}}
	if data != nil {
		var v any
		if err := json.Unmarshal(data, &v); err != nil {
			return nil, fmt.Errorf("load policy_data: %w", err)
		}
		root["agent_policy"] = map[string]any{"policy_data": v}
	}
	store := inmem.NewFromObjectWithOpts(root, inmem.OptReturnASTValuesOnRead(true))
	return &Judge{compiler: j.compiler, store: store, queries: map[string]rego.PreparedEvalQuery{}}, nil
}

// Ask judges a request and, where it is allowed, applies what the policy says to
// the state. Anything but true or an object with allowed: true denies.
func (j *Judge) Ask(ctx context.Context, r Request) (Decision, error) {
	value, err := ast.InterfaceToValue(r.Input)
	if err != nil {
		return Decision{}, fmt.Errorf("ask %s: %w", r.Kind, err)
	}
	d, err := j.Decide(ctx, r.Kind, value)
	if err != nil || !d.Allowed {
		return d, err
	}
	return d, j.Apply(ctx, d.Ops)
}

// Decide judges a request and leaves the state alone.
func (j *Judge) Decide(ctx context.Context, kind string, input ast.Value) (Decision, error) {
	v, err := j.Eval(ctx, kind, input)
	if err != nil {
		return Decision{}, err
	}
	switch v := v.(type) {
	case bool:
		return Decision{Allowed: v}, nil
	case map[string]any:
		raw, err := json.Marshal(v)
		if err != nil {
			return Decision{}, fmt.Errorf("decide %s: %w", kind, err)
		}
		var d Decision
		err = json.Unmarshal(raw, &d)
		return d, err
	}
	return Decision{}, nil
}

// Prepare makes the query of a rule ready, which the first Eval otherwise does.
func (j *Judge) Prepare(ctx context.Context, rule string) error {
	if _, ok := j.queries[rule]; ok {
		return nil
	}
	query, err := rego.New(rego.Query("data.agent_policy."+rule), rego.Compiler(j.compiler), rego.Store(j.store)).PrepareForEval(ctx)
	if err != nil {
		return fmt.Errorf("prepare %s: %w", rule, err)
	}
	j.queries[rule] = query
	return nil
}

// Eval returns the value of a rule, or nil where it is undefined.
func (j *Judge) Eval(ctx context.Context, rule string, input ast.Value) (any, error) {
	if err := j.Prepare(ctx, rule); err != nil {
		return nil, err
	}
	results, err := j.queries[rule].Eval(ctx, rego.EvalParsedInput(input))
	if err != nil {
		return nil, fmt.Errorf("evaluate %s: %w", rule, err)
	}
	if len(results) != 1 || len(results[0].Expressions) != 1 {
		return nil, nil
	}
	return results[0].Expressions[0].Value, nil
}

// Apply makes the changes of an allowed request, all or none.
func (j *Judge) Apply(ctx context.Context, ops []Op) error {
	if len(ops) == 0 {
		return nil
	}
	return storage.Txn(ctx, j.store, storage.WriteParams, func(txn storage.Transaction) error {
		for _, op := range ops {
			path, err := pointer(op.Path)
			if err != nil {
				return err
			}
			kind := map[string]storage.PatchOp{"add": storage.AddOp, "replace": storage.ReplaceOp, "remove": storage.RemoveOp}
			if err := j.store.Write(ctx, txn, kind[op.Op], path, op.Value); err != nil {
				return fmt.Errorf("apply %s %s: %w", op.Op, op.Path, err)
			}
		}
		return nil
	})
}

// State returns the state, a JSON object.
func (j *Judge) State(ctx context.Context) (map[string]any, error) {
	v, err := storage.ReadOne(ctx, j.store, storage.Path{"pstate"})
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	value, ok := v.(ast.Value)
	if !ok {
		return nil, errors.New("read state: not an AST value")
	}
	plain, err := ast.JSON(value)
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	return plain.(map[string]any), nil
}

// SetState replaces the state.
func (j *Judge) SetState(ctx context.Context, state map[string]any) error {
	return storage.WriteOne(ctx, j.store, storage.AddOp, storage.Path{"pstate"}, state)
}

// ErrPath is returned for an op outside the state.
var ErrPath = errors.New("op outside /pstate")

func pointer(text string) (storage.Path, error) {
	if !strings.HasPrefix(text, "/pstate/") {
		return nil, fmt.Errorf("%w: %s", ErrPath, text)
	}
	var path storage.Path
	for _, part := range strings.Split(text[1:], "/") {
		path = append(path, strings.NewReplacer("~1", "/", "~0", "~").Replace(part))
	}
	return path, nil
}
