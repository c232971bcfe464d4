// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine"
	"portcullis/engine/policytext"
	"portcullis/rules"
)

// ErrRules is returned for a compact policy whose rules this program does not hold.
var ErrRules = errors.New("the policy names rules that are not held here; use its full form")

// Explainer explains the denials of one policy. It is not safe for concurrent use.
type Explainer struct {
	policy *engine.Policy
	engine *engine.Engine
	plain  bool // the rules are not ours
}

// New prepares a policy text, full or compact. Close ends it.
func New(text []byte) (*Explainer, error) {
	policy, err := compile(text)
	if err != nil {
		var unheld *engine.UnheldRulesError
		if errors.As(err, &unheld) {
			return nil, fmt.Errorf("explain policy: %w: %v", ErrRules, unheld.Digest)
		}
		return nil, fmt.Errorf("explain policy: %w", err)
	}
	return &Explainer{
		policy: policy,
		engine: engine.New(policy, engine.Options{Workers: 1, Cache: -1}),
		plain:  !policy.Has("findings") || !policy.Has("container"),
	}, nil
}

// Close frees what the Explainer holds.
func (e *Explainer) Close() { e.engine.Close() }

// compile puts our findings beside the rules of a text where they fit: beside those that this program holds, and others that have
// the names of our files.
func compile(text []byte) (*engine.Policy, error) {
	held := rules.Held()
	if parts, err := policytext.Split(text); err == nil && parts.Form == policytext.Full {
		held = append([]policytext.Held{{Text: parts.Rules, Reasons: []byte(rules.ReasonsOf(parts.Rules))}}, held...)
	}
	compiler, err := engine.NewCompiler(engine.CompilerOptions{HeldRules: held})
	if err != nil {
		return nil, err
	}
	return compiler.Compile(context.Background(), text)
}

// session is one question before one policy.
type session struct {
	ctx    context.Context
	policy *engine.Policy
	engine *engine.Engine
	kind   string
	input  any       // decoded, numbers as json.Number
	value  ast.Value // the same for evaluation
	state  any
}

func (e *Explainer) open(ctx context.Context, q Question) (*session, error) {
	s := &session{ctx: ctx, policy: e.policy, engine: e.engine, kind: q.Kind, state: map[string]any{}}
	var err error
	if s.input, err = decode(q.Input); err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	if s.value, err = ast.InterfaceToValue(s.input); err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	if len(q.State) > 0 {
		state, err := decode(q.State)
		if err != nil {
			return nil, fmt.Errorf("read state: %w", err)
		}
		if pstate := at(state, "pstate"); pstate != nil {
			s.state = pstate
		}
	}
	possible, err := json.Marshal(map[string]any{"pstate": s.state})
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	return s, e.engine.Restore(ctx, e.policy, engine.State{Possible: []json.RawMessage{possible}})
}

// allowed says whether the policy allows the request after all.
func (s *session) allowed() (bool, error) {
	v, err := s.eval(s.kind)
	return v == true || at(v, "allowed") == true, err
}

// eval gives the value of a reference below data.agent_policy, nil if it is undefined.
func (s *session) eval(path ...string) (any, error) {
	value, known, err := s.engine.Query(s.ctx, path, s.value)
	if errors.Is(err, engine.ErrEvaluation) {
		return nil, nil // a conflict or another error of the policy's: it decides nothing
	}
	if err != nil || !known {
		return nil, err
	}
	return plainValue(value)
}

// query evaluates a body as it would stand in the policy.
func (s *session) query(q engine.Inquiry) ([]map[ast.Var]ast.Value, error) {
	q.Input = s.value
	solutions, err := s.engine.Ask(s.ctx, q)
	if errors.Is(err, engine.ErrEvaluation) {
		return nil, nil
	}
	return solutions, err
}

// plainValue is an evaluated value as decoded JSON; sets are sorted lists.
func plainValue(v ast.Value) (any, error) {
	return ast.JSONWithOpt(v, ast.JSONOpt{SortSets: true})
}
