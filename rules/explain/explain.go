// SPDX-License-Identifier: Apache-2.0

// Package explain tells why a policy denied a request: the container of the policy that the request is nearest to, the checks in
// order with their results, and of the first that failed where in the request it looked, what the policy wants and what the
// request has.
//
// For the rules of package rules it asks their own findings. For any other Rego policy it follows one evaluation, with prints on,
// and compares the request with the policy's data. Either way it decides nothing: whether a request is denied is for the engine
// to say.
package explain

import (
	"context"
	"encoding/json"
	"fmt"

	"portcullis/internal/strictjson"
)

// Question is a request that was denied, with the state it was judged in.
type Question struct {
	Kind  string          // entry point, "CreateContainerRequest"
	Input json.RawMessage // the input document
	State json.RawMessage // {"pstate": {...}}; empty for the initial state
}

// Result is the outcome of one check.
type Result string

// Values of Result. NotReached is a check that could not be held by itself, because it depends on one before it that failed.
const (
	Passed     Result = "passed"
	Failed     Result = "failed"
	NotReached Result = "not reached"
)

// Check is one condition of the rule that decides, in the rule's order.
type Check struct {
	Name   string `json:"name"`
	Result Result `json:"result"`
}

// Finding is one place where the request is not what the policy wants.
type Finding struct {
	Check  string `json:"check"`
	Path   string `json:"path"` // in the request: "OCI.Process.Args[2]"; empty if no place is known
	Wanted any    `json:"wanted"`
	Got    any    `json:"got"`
	Secret bool   `json:"secret,omitempty"` // Wanted and Got are values of the workload's, to be hidden
}

// Phrase is a value of a finding that is not one of the request's or policy's: "missing".
type Phrase string

// oneOf is a list of which any value will do.
type oneOf []string

// What a finding says of things that are there or not.
const (
	missing Phrase = "missing"
	once    Phrase = "once"
	twice   Phrase = "twice"
)

// Explanation is why a request was denied.
type Explanation struct {
	Kind      string    `json:"kind"`
	Container string    `json:"container"` // name in the policy; empty if none is near
	Checks    []Check   `json:"checks"`
	Findings  []Finding `json:"findings"`              // the first is the first that failed; empty if nothing is known
	Change    string    `json:"change"`                // what to change in the manifest or the settings
	Line      int       `json:"policy_line,omitempty"` // of a plain policy: where Rule is in it
	Rule      string    `json:"rule,omitempty"`        // of a plain policy: the expression that failed
	Values    []Value   `json:"values,omitempty"`      // of a plain policy: what the terms of Rule stood for
	Prints    []string  `json:"prints,omitempty"`      // of a plain policy: what it printed for that container, the end of it

	secrets []string // values to hide in prints and rules
}

// maxPrints bounds Explanation.Prints.
const maxPrints = 12

// Explain says why the policy denied a request. A request that the policy allows has an explanation without findings.
func (e *Explainer) Explain(ctx context.Context, q Question) (*Explanation, error) {
	s, err := e.open(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("explain %s: %w", q.Kind, err)
	}
	x := &Explanation{Kind: q.Kind, secrets: secretsOf(s)}
	if !e.policy.Has(q.Kind) {
		x.Findings = []Finding{{Check: "rule", Path: q.Kind, Wanted: Phrase("a rule of that name"), Got: missing}}
		x.Change = "the policy has no rule for this request, so it is always denied"
		return x, nil
	}
	if allowed, err := s.allowed(); allowed || err != nil {
		return x, err
	}
	explain := s.explainOurs
	if e.plain {
		explain = s.explainPlain
	}
	if err := explain(x); err != nil {
		return nil, fmt.Errorf("explain %s: %w", q.Kind, err)
	}
	if !e.plain && fromCRIO(q) {
		x.Findings, x.Change = []Finding{crio}, useContainerd
	}
	x.Change = printable(x.Change)
	return x, nil
}

// AddReason is for a request that is denied although its rules allow it: reason is
// what the engine said, of changes to the state that cannot be made, say.
func (x *Explanation) AddReason(reason string) {
	if len(x.Findings) == 0 && reason != "" {
		x.Findings = []Finding{{Check: "engine", Wanted: Phrase(reason)}}
	}
}

// decode reads one JSON value with its numbers as they are written.
func decode(text []byte) (any, error) {
	var v any
	if err := strictjson.Tree(text, &v); err != nil {
		return nil, err
	}
	return v, nil
}
