// SPDX-License-Identifier: Apache-2.0

// Package prove answers what a policy allows: whether one policy allows no more than another, and whether it has a property such as
// "no exec". It reads policy_data, whose rules are fixed and known by their digest, and does not sample requests.
//
// Each check of the rules has a comparison of its own, tied to it by name: given two policies it says whether everything that
// passes the check under one passes it under the other. If all comparisons hold, so does the whole, because the rules only ever
// ask all checks. Where one does not, a request that shows the difference is looked for and decided by the real engine under both
// policies. Only a request that was decided so is given as an answer; if none is found, the answer is unknown.
package prove

import (
	"context"
	"errors"
	"fmt"
	"time"

	"portcullis/engine"
	"portcullis/engine/policytext"
	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/policydata"
	"portcullis/rules/prove/language"
)

// ErrRules says that a policy has other rules than those that this package knows.
var ErrRules = errors.New("its rules are not those of this release, so that nothing can be proven about it")

// Prover loads policies and compares them. It is not safe for concurrent use.
type Prover struct {
	compiler *engine.Compiler
	read     map[string]language.Set // patterns, by their text
}

// New makes a prover.
func New() (*Prover, error) {
	compiler, err := engine.NewCompiler(engine.CompilerOptions{HeldRules: rules.Held()})
	if err != nil {
		return nil, fmt.Errorf("make prover: %w", err)
	}
	return &Prover{compiler, map[string]language.Set{}}, nil
}

// Policy is a policy that was loaded. Close it after use.
type Policy struct {
	Data     *policydata.Policy
	compiler *engine.Compiler
	engine   *engine.Engine // nil until a request is decided, for a policy that was made here
}

// Load reads a policy in the full or compact form. The error is [ErrRules] where its rules are others, of another release or of
// another tool, and [ErrWritten] where policy_data leaves out what the rules read; other errors say what is wrong with the text.
func (p *Prover) Load(ctx context.Context, text []byte) (*Policy, error) {
	data, parts, err := policydata.Parse(text)
	switch {
	case errors.Is(err, policydata.ErrUpstream), errors.Is(err, policytext.ErrForm):
		return nil, fmt.Errorf("load policy: %w", ErrRules)
	case err != nil:
		return nil, fmt.Errorf("load policy: %w", err)
	case parts.Form == policytext.Bare || parts.Digest != knownRules():
		return nil, fmt.Errorf("load policy: %w", ErrRules)
	}
	if err := errors.Join(data.Validate(), written(parts.Data, data)); err != nil {
		return nil, fmt.Errorf("load policy: %w", err)
	}
	compiled, err := p.compiler.Compile(ctx, compact(parts))
	if err != nil {
		return nil, fmt.Errorf("load policy: %w", err)
	}
	return &Policy{data, p.compiler, newEngine(compiled)}, nil
}

func newEngine(p *engine.Policy) *engine.Engine {
	return engine.New(p, engine.Options{Cache: -1, Timeout: time.Minute})
}

// ready starts the engine of a policy that was made here.
func (p *Policy) ready(ctx context.Context) error {
	if p.engine != nil {
		return nil
	}
	text, err := p.Data.Compact(rules.Text())
	if err != nil {
		return err
	}
	compiled, err := p.compiler.Compile(ctx, text)
	if err != nil {
		return err
	}
	p.engine = newEngine(compiled)
	return nil
}

// Close ends the policy's engine.
func (p *Policy) Close() {
	if p.engine != nil {
		p.engine.Close()
	}
}

func knownRules() policytext.Digest {
	for _, held := range rules.Held() {
		if !held.OnDemand {
			return policytext.DigestOf(held.Text)
		}
	}
	return policytext.Digest{}
}

// compact is the compact form of a policy: the same data under the same rules, which compiles at once.
func compact(parts policytext.Parts) []byte {
	return fmt.Appendf(nil, "package agent_policy\n\nrules := %q\n\npolicy_data := %s\n", parts.Digest, parts.Data)
}

// Verdict is the answer to a question.
type Verdict string

// Values of Verdict.
const (
	Proven  Verdict = "proven"
	Refuted Verdict = "refuted" // Result.Witness shows it
	Unknown Verdict = "unknown" // neither was found; Result.Open says where
)

// Result is the answer to a question with what supports it.
type Result struct {
	Verdict Verdict  `json:"verdict"`
	Witness *Witness `json:"witness,omitempty"` // of Refuted
	Open    []Open   `json:"open,omitempty"`    // of Unknown: what could be neither proven nor shown by a request
	Looser  []Open   `json:"looser,omitempty"`  // of Refuted: every comparison that does not hold
	Checks  []string `json:"checks,omitempty"`  // of Proven: the checks that were compared
	Note    string   `json:"note,omitempty"`    // of a property: that the policy has not what it is about
}

// Open is a comparison that does not hold.
type Open struct {
	Check string `json:"check"` // of the rules
	Path  string `json:"path"`  // in policy_data, "containers[web].args[2]"
	Says  string `json:"says"`  // why, in words
}

// Witness is a sequence of requests that shows a difference: all are allowed by one policy, the last is denied by the other.
type Witness struct {
	Open
	Requests []rulestest.Request `json:"requests"`
	Reason   string              `json:"reason"` // of the denial
}

// Within says whether a allows everything that b allows.
func (p *Prover) Within(ctx context.Context, a, b *Policy) (*Result, error) {
	c := p.compare(a.Data, b.Data)
	if err := errors.Join(c.err, p.updated(c)); err != nil {
		return nil, fmt.Errorf("compare policies: %w", err)
	}
	if len(c.differences) == 0 {
		return &Result{Verdict: Proven, Checks: checkNames()}, nil
	}
	s := &searcher{a: a, b: b}
	out := &Result{Verdict: Unknown}
	for _, d := range c.differences {
		out.Open = append(out.Open, d.Open)
	}
	for _, d := range c.differences {
		w, err := s.search(ctx, d)
		if err != nil {
			return nil, fmt.Errorf("compare policies: %w", err)
		}
		if w != nil {
			return &Result{Verdict: Refuted, Witness: w, Looser: out.Open}, nil
		}
	}
	return out, nil
}

// compare asks every module.
func (p *Prover) compare(a, b *policydata.Policy) *comparison {
	c := &comparison{a: a, b: b, read: p.read}
	for _, m := range modules {
		c.check = m.check
		m.compare(c)
	}
	return c
}

// checkNames are the checks that have a comparison, in the order of the table.
func checkNames() []string {
	var names []string
	for _, m := range modules {
		names = append(names, m.check)
	}
	return names
}
