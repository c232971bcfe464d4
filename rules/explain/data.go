package explain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine/policytext"
	"portcullis/rules/policydata"
)

// Data is the policy's data as our rules take it, in the shape of package
// policydata. Of data in upstream's shape it is what our rules for that shape
// make of it. It wraps [policytext.ErrForm] for a policy of other rules.
func (e *Explainer) Data(ctx context.Context) (*policydata.Policy, error) {
	if e.plain {
		return nil, fmt.Errorf("read policy_data: the rules are of another make: %w", policytext.ErrForm)
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
// nil for rules of another make, which this package cannot ask.
func (e *Explainer) Unbound(ctx context.Context) ([]string, error) {
	p, err := e.Data(ctx)
	if errors.Is(err, policytext.ErrForm) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(containerNames(p), func(name string) bool { return p.Containers[name].Image.Bound() }), nil
}

// Answers evaluates an entry point with an empty request in the initial state:
// what is allowed so is allowed whatever the request holds.
func (e *Explainer) Answers(ctx context.Context, kind string) (allowed, known bool, err error) {
	if !e.policy.has(kind) {
		return false, false, nil
	}
	s, err := e.open(ctx, Question{Kind: kind, Input: json.RawMessage("{}")})
	if err != nil {
		return false, true, err
	}
	allowed, err = s.allowed()
	return allowed, true, err
}

// Denies says whether the policy denies a request whatever it holds: it has no
// rule for it, or none that could be true.
func (e *Explainer) Denies(kind string) bool { return !e.policy.has(kind) || e.policy.denies(kind) }

// data asks the rules for the policy and for each of its containers: they may
// make them of data in another shape.
func (s *session) data() (*policydata.Policy, error) {
	value, err := s.eval("policy")
	if err != nil {
		return nil, err
	}
	tree := object(value)
	if tree == nil {
		return nil, policytext.ErrForm
	}
	containers := map[string]any{}
	for name := range object(tree["containers"]) {
		body, err := ast.ParseBody("found := data.agent_policy.policy_container(" + strconv.Quote(name) + ")")
		if err != nil {
			return nil, err
		}
		rs, err := s.query(body)
		if err != nil || len(rs) != 1 {
			return nil, fmt.Errorf("container %s cannot be read: %w", strconv.Quote(name), errorsOr(err, policytext.ErrForm))
		}
		if containers[name], err = plainValue(rs[0].Bindings["found"]); err != nil {
			return nil, err
		}
	}
	tree["containers"] = containers
	var p *policydata.Policy
	err = convert(tree, &p)
	return p, err
}

func errorsOr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}
