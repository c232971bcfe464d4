// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine/jsonvalue"
	"portcullis/engine/policytext"
	"portcullis/internal/wait"
)

// DefaultTimeout bounds one judgement where no other bound is given.
const DefaultTimeout = 2 * time.Second

// CompilerOptions are fixed when a [Compiler] is made.
type CompilerOptions struct {
	// Timeout bounds the one evaluation that Compile makes. Zero means DefaultTimeout.
	Timeout time.Duration
	// HeldRules are the rules that a compact policy may name by digest.
	HeldRules []policytext.Held
	// LateReasons compiles the reasons of held rules when a request is first denied, in the background, and for that request
	// alone. It saves memory where nobody asks for them otherwise: Query, Ask and Rules do not find them, and Reaches and
	// ReadsState do not count what they read beyond what the decision does.
	LateReasons bool
	// AfterReasons is called, if not nil, after each late compilation: what it took can be given back to the system.
	AfterReasons func()
}

// Compiler turns policy texts into policies. It is immutable and safe for concurrent use.
type Compiler struct {
	timeout time.Duration
	v0, v1  *ast.Capabilities
	held    map[policytext.Digest]func() (*program, error) // compiled once, when first asked for
	busy    chan struct{}                                  // holds an element while a text is compiled, also one that nobody waits for
	warm    []func() (*program, error)
	late    bool
	after   func()
}

// CompileError says where a policy text does not compile. It never quotes the text.
type CompileError struct {
	Line, Column  int // 1-based; zero when the place is unknown
	Code, Message string
}

func (e *CompileError) Error() string {
	return fmt.Sprintf("compile policy: %d:%d: %s: %s", e.Line, e.Column, e.Code, e.Message)
}

// UnheldRulesError is the refusal of a compact policy whose rules this guest does not hold.
type UnheldRulesError struct{ Digest policytext.Digest }

func (e *UnheldRulesError) Error() string {
	return fmt.Sprintf("compile policy: rules %v are not held by this guest, use the full form", e.Digest)
}

// ErrCompilePanic is wrapped by the error of a text on which the parser or compiler panicked.
var ErrCompilePanic = errors.New("policy compiler panicked")

// NewCompiler makes a compiler. Held rules are not compiled yet: that is done by Warm, or when a policy first names them.
func NewCompiler(opts CompilerOptions) (*Compiler, error) {
	c := &Compiler{
		timeout: opts.Timeout,
		v0:      capabilities(ast.RegoV0),
		v1:      capabilities(ast.RegoV1),
		busy:    make(chan struct{}, 1),
		late:    opts.LateReasons,
		after:   opts.AfterReasons,
		held:    make(map[policytext.Digest]func() (*program, error), len(opts.HeldRules)),
	}
	if c.timeout <= 0 {
		c.timeout = DefaultTimeout
	}
	for i, rules := range opts.HeldRules {
		if err := CheckText(rules.Text); err != nil {
			return nil, fmt.Errorf("held rules %d: %w", i, err)
		}
		build := sync.OnceValues(func() (*program, error) {
			return c.build(source{rules: rules.Text, reasons: rules.Reasons, hoisted: true})
		})
		c.held[policytext.DigestOf(rules.Text)] = build
		if !rules.OnDemand {
			c.warm = append(c.warm, build)
		}
	}
	return c, nil
}

// Warm compiles the held rules, so that a policy that names them only has to load its data. It is for a guest's idle time
// between its start and the first policy; a policy that comes meanwhile waits for it. It fails if one does not compile.
func (c *Compiler) Warm() error {
	var failed error
	for _, build := range c.warm {
		failed = errors.Join(failed, attempt(build))
	}
	return failed
}

func attempt(build func() (*program, error)) (err error) {
	defer recoverTo(&err, ErrCompilePanic)
	_, err = build()
	return err
}

// source is what a program is built from.
type source struct {
	rules   []byte
	reasons []byte // compiled beside the rules; nil for none
	hoisted bool   // policy_data is not a rule but a base document, which the rules may name as if it were one
}

// Compile checks the bounds of text, parses it (Rego v0 first, v1 if that fails), and prepares it for evaluation. The text is
// copied. Errors are the ErrText sentinels, *CompileError, *UnheldRulesError, ErrCompilePanic and that of ctx. When ctx ends
// first, the compilation is left to finish by itself; the next one waits for it, so that there is never more than one.
func (c *Compiler) Compile(ctx context.Context, text []byte) (*Policy, error) {
	if err := CheckText(text); err != nil {
		return nil, fmt.Errorf("compile policy: %w", err)
	}
	type result struct {
		policy *Policy
		err    error
	}
	text = bytes.Clone(text)
	answer, err := wait.Result(ctx, func() (r result, err error) {
		if err := wait.Acquire(ctx, c.busy); err != nil {
			return r, err
		}
		defer func() { <-c.busy }()
		defer recoverTo(&r.err, ErrCompilePanic)
		r.policy, r.err = c.load(ctx, text)
		return r, nil
	})
	if err != nil {
		return nil, fmt.Errorf("compile policy: %w", err)
	}
	if answer.err != nil {
		return nil, answer.err
	}
	return answer.policy, nil
}

// recoverTo makes a panic of the deferring function into an error that wraps as.
func recoverTo(err *error, as error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w: %.200v", as, r)
	}
}

// load finds the form of text. A full text with rules that are held, or that compile by themselves, keeps its policy_data as
// plain data; any other is compiled as it stands, so that taking it apart can never change what it means.
func (c *Compiler) load(ctx context.Context, text []byte) (*Policy, error) {
	p, err := policytext.Split(text)
	switch {
	case errors.Is(err, policytext.ErrTwice):
		return nil, fmt.Errorf("compile policy: %w", err)
	case err != nil || p.Form == policytext.Bare:
		return c.loadWhole(ctx, text)
	}
	data, err := jsonvalue.ReadStrict(p.Data)
	if err != nil {
		return c.loadWhole(ctx, text)
	}
	build, held := c.held[p.Digest]
	if p.Form == policytext.Compact && !held {
		return nil, &UnheldRulesError{Digest: p.Digest}
	}
	if !held {
		build = func() (*program, error) { return c.build(source{rules: p.Rules, hoisted: true}) }
	}
	prog, err := build()
	switch {
	case err == nil:
		return newPolicy(ctx, c, policyParts{text: text, program: prog, data: data})
	case p.Form == policytext.Compact:
		return nil, fmt.Errorf("held rules: %w", err)
	}
	return c.loadWhole(ctx, text)
}

// loadWhole compiles text as it stands.
func (c *Compiler) loadWhole(ctx context.Context, text []byte) (*Policy, error) {
	prog, err := c.build(source{rules: text})
	if err != nil {
		return nil, err
	}
	return newPolicy(ctx, c, policyParts{text: text, program: prog})
}

// build compiles rules as Rego v0 and, if that fails, as v1. Of two failures it reports the one that got further.
func (c *Compiler) build(src source) (*program, error) {
	if words(src.rules) > MaxWords {
		return nil, fmt.Errorf("compile policy: %w", ErrTextWords)
	}
	prog, err0 := c.buildVersion(src, ast.RegoV0)
	if err0 == nil {
		return prog, nil
	}
	prog, err1 := c.buildVersion(src, ast.RegoV1)
	if err1 == nil {
		return prog, nil
	}
	if err1.after(err0) {
		return nil, &err1.CompileError
	}
	return nil, &err0.CompileError
}

// stagedError is a compile error with the stage that found it: parsing is 0, compiling is 1.
type stagedError struct {
	CompileError
	stage int
}

func (e *stagedError) after(o *stagedError) bool {
	if e.stage != o.stage {
		return e.stage > o.stage
	}
	return e.Line > o.Line
}

var (
	policyPackage = ast.MustParseRef("data.agent_policy")
	policyData    = ast.MustParseRef("data.agent_policy.policy_data")
)

const dataName = "policy_data"

// buildVersion parses and compiles the source as one version of Rego.
func (c *Compiler) buildVersion(src source, version ast.RegoVersion) (*program, *stagedError) {
	caps := c.v0
	if version == ast.RegoV1 {
		caps = c.v1
	}
	opts := ast.ParserOptions{RegoVersion: version, Capabilities: caps}
	module, err := parse(src.rules, opts)
	if err != nil {
		return nil, err
	}
	if src.hoisted {
		if err := importData(module); err != nil {
			return nil, err
		}
	}
	var late *lateReasons
	switch {
	case src.reasons == nil:
	case c.late:
		late = &lateReasons{text: src.reasons, opts: opts, after: c.after}
	default:
		reasons, err := parse(src.reasons, opts)
		if err != nil {
			return nil, err
		}
		if err := addReasons(module, reasons); err != nil {
			return nil, err
		}
	}
	prog := &program{module: module, caps: caps, prints: callsPrint(module), late: late}
	if err := prog.compile(); err != nil {
		return nil, staged(1, err)
	}
	return prog, nil
}

// parse reads one module of the package agent_policy.
func parse(text []byte, opts ast.ParserOptions) (*ast.Module, *stagedError) {
	module, err := ast.ParseModuleWithOpts(moduleName, string(joinPrints(text)), opts)
	if err != nil {
		return nil, staged(0, err)
	}
	if !module.Package.Path.Equal(policyPackage) {
		return nil, misplaced(module.Package.Location, "package_error", "the package must be agent_policy")
	}
	return module, nil
}

// addReasons moves the rules of reasons into module, whose imports serve them too. Neither may define what the other defines.
func addReasons(module, reasons *ast.Module) *stagedError {
	defined := map[string]bool{}
	for _, rule := range module.Rules {
		defined[ruleName(rule)] = true
	}
	for _, rule := range reasons.Rules {
		if defined[ruleName(rule)] {
			return misplaced(rule.Location, "reasons_error", "reasons must not define a rule that decides")
		}
		ast.WalkRules(rule, func(r *ast.Rule) bool {
			r.Module = module
			return false
		})
		module.Rules = append(module.Rules, rule)
	}
	return nil
}

func misplaced(at *ast.Location, code, message string) *stagedError {
	return &stagedError{stage: 1, CompileError: CompileError{Line: at.Row, Column: at.Col, Code: code, Message: message}}
}

// importData lets the rules of module name the base document policy_data by its bare name.
func importData(module *ast.Module) *stagedError {
	for _, rule := range module.Rules {
		if rule.Head.Ref()[0].Value.Compare(ast.Var(dataName)) == 0 {
			return misplaced(rule.Location, "policy_data_error", "rules must not define policy_data")
		}
	}
	for _, imp := range module.Imports {
		if imp.Name().Compare(ast.Var(dataName)) == 0 {
			if ref, ok := imp.Path.Value.(ast.Ref); ok && ref.Equal(policyData) {
				return nil
			}
			return misplaced(imp.Location, "policy_data_error", "rules must not import another policy_data")
		}
	}
	module.Imports = append(module.Imports, &ast.Import{Path: ast.NewTerm(policyData.Copy()), Location: module.Package.Location})
	return nil
}

// recursionHelp is the message for rules that OPA does not run.
const recursionHelp = "a rule or function calls itself, which only kata-agent's own engine runs; " +
	"policies of genpolicy have none, so this one was written or changed by hand: see docs/foreign-policies.md"

// staged takes the first of the errors that OPA reports, without the source lines that it attaches.
func staged(stage int, err error) *stagedError {
	e := &stagedError{stage: stage, CompileError: CompileError{Code: "compile_error", Message: "the text is not a policy"}}
	var list ast.Errors
	var one *ast.Error
	if errors.As(err, &list) && len(list) > 0 {
		one = list[0]
	} else if !errors.As(err, &one) {
		e.Message = OneLine(err.Error(), 200)
		return e
	}
	message, _, _ := strings.Cut(one.Message, "\n")
	if one.Code == ast.RecursionErr {
		message = recursionHelp
	}
	e.Code, e.Message = one.Code, OneLine(message, 200)
	if one.Location != nil {
		e.Line, e.Column = one.Location.Row, one.Location.Col
	}
	return e
}
