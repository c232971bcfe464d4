// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Policy is one compiled policy text. It is immutable and safe for concurrent use.
type Policy struct {
	text    []byte
	digest  [sha256.Size]byte
	program *program
	base    *ast.Term // the object at data.agent_policy: empty, or {"policy_data": ...}
	waives  bool
}

// policyParts is what a policy is made of.
type policyParts struct {
	text    []byte
	program *program
	data    ast.Value // nil where policy_data is a rule of the program
}

// waiverRule is the rule that turns denials into warnings.
const waiverRule = "AllowRequestsFailingPolicy"

// newPolicy evaluates the waiver, once: it is constant for the policy's life.
func newPolicy(ctx context.Context, c *Compiler, parts policyParts) (*Policy, error) {
	base := ast.NewObject()
	if parts.data != nil {
		base.Insert(ast.StringTerm(dataName), ast.NewTerm(parts.data))
	}
	p := &Policy{text: parts.text, digest: sha256.Sum256(parts.text), program: parts.program, base: ast.NewTerm(base)}
	en := p.program.entries[waiverRule]
	if en == nil {
		return p, nil
	}
	q, err := en.query()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, ErrDeadline)
	defer cancel()
	fresh := freshState()
	v, err := q.eval(ctx, evaluation{data: fresh.snapshot(p), input: ast.NewObject(), strict: true})
	p.waives = err == nil && v != nil && v.Compare(ast.Boolean(true)) == 0
	return p, nil
}

// Digest is the SHA-256 of the exact text.
func (p *Policy) Digest() [sha256.Size]byte { return p.digest }

// Text is a copy of the exact text.
func (p *Policy) Text() []byte { return bytes.Clone(p.text) }

// AllowsFailing says whether AllowRequestsFailingPolicy was true when the policy was compiled.
func (p *Policy) AllowsFailing() bool { return p.waives }

// Has says whether the policy has a rule for the entry point. Without one every such request is denied.
func (p *Policy) Has(entryPoint string) bool { return p.program.entries[entryPoint] != nil }

// Reaches says whether judging the entry point, its reasons included, may read input.<path...>: the field itself, something in
// it, or something that contains it. It is decided on the compiled rules and errs to true. Arguments of print do not count.
func (p *Policy) Reaches(entryPoint string, path ...string) bool {
	en := p.program.entries[entryPoint]
	if en == nil {
		return false
	}
	f := en.footprint()
	return f.whole || touches(f.input, path)
}

// Names says whether a rule behind the entry point refers to input.<field> by that name. Unlike Reaches it errs to false: it is
// for fields that only rules which ask for them are given.
func (p *Policy) Names(entryPoint, field string) bool {
	en := p.program.entries[entryPoint]
	if en == nil {
		return false
	}
	return slices.ContainsFunc(en.footprint().input, func(ref ast.Ref) bool {
		return len(ref) > 1 && ref[1].Value.Compare(ast.String(field)) == 0
	})
}

// ReadsState says whether judging the entry point, its reasons included, may read data.pstate. It errs to true.
func (p *Policy) ReadsState(entryPoint string) bool {
	en := p.program.entries[entryPoint]
	if en == nil {
		return false
	}
	f := en.footprint()
	return f.whole || touches(f.data, []string{stateName})
}
