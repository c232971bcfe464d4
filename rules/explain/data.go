// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine/policytext"
	"portcullis/rules/policydata"
)

// Data is the policy's data as our rules take it, in the shape of package policydata. Of data in upstream's shape it is what our
// rules for that shape make of it. It wraps [policytext.ErrForm] for a policy of other rules.
func (e *Explainer) Data(ctx context.Context) (*policydata.Policy, error) {
	if e.plain {
		return nil, fmt.Errorf("read policy_data: the rules are not this project's: %w", policytext.ErrForm)
	}
	s, err := e.open(ctx, Question{Input: json.RawMessage("{}")})
	if err != nil {
		return nil, fmt.Errorf("read policy_data: %w", err)
	}
	p, err := s.data()
	if err != nil {
		return nil, fmt.Errorf("read policy_data: %w", err)
	}
	return p, nil
}

// Unbound lists the containers whose images the policy does not bind, by name:
// nil for rules of others, which this package cannot ask.
func (e *Explainer) Unbound(ctx context.Context) ([]string, error) {
	p, err := e.Data(ctx)
	if errors.Is(err, policytext.ErrForm) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(p.Containers))
	return slices.DeleteFunc(names, func(name string) bool { return p.Containers[name].ImageBound() }), nil
}

// Answers evaluates an entry point with an empty request in the initial state:
// what is allowed so is allowed whatever the request holds.
func (e *Explainer) Answers(ctx context.Context, kind string) (allowed, known bool, err error) {
	if !e.policy.Has(kind) {
		return false, false, nil
	}
	s, err := e.open(ctx, Question{Kind: kind, Input: json.RawMessage("{}")})
	if err != nil {
		return false, true, err
	}
	allowed, err = s.allowed()
	return allowed, true, err
}

// Denies says whether the policy denies a request whatever it holds: it has no rule for it, or none that could be true.
func (e *Explainer) Denies(kind string) bool {
	return !slices.ContainsFunc(e.policy.Rules(kind), func(rule *ast.Rule) bool { return !alwaysFalse(rule) })
}

// alwaysFalse says whether a rule gives false and nothing else.
func alwaysFalse(rule *ast.Rule) bool {
	return rule.Head.Value != nil && rule.Head.Value.Value.Compare(ast.Boolean(false)) == 0
}

// data asks the rules for the policy and for each of its containers: they may make them of data in another shape.
func (s *session) data() (*policydata.Policy, error) {
	value, err := s.eval("policy")
	if err != nil {
		return nil, err
	}
	tree := object(value)
	if tree == nil {
		return nil, policytext.ErrForm
	}
	containers, err := s.eval("policy_containers")
	if err != nil {
		return nil, err
	}
	if containers == nil {
		return nil, fmt.Errorf("its containers cannot be read: %w", policytext.ErrForm)
	}
	tree["containers"] = containers
	var p *policydata.Policy
	err = convert(tree, &p)
	return p, err
}
