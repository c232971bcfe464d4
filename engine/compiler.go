package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// DefaultTimeout bounds one judgement where no other bound is given.
const DefaultTimeout = 2 * time.Second

// CompilerOptions are fixed when a [Compiler] is made.
type CompilerOptions struct {
	// Timeout bounds the one evaluation that Compile makes. Zero means DefaultTimeout.
	Timeout time.Duration
	// HeldRules are the rules texts that a compact policy may name by digest: each the exact bytes that precede policy_data
	// in the full form.
	HeldRules [][]byte
}

// Compiler turns policy texts into policies. It is immutable and safe for concurrent use.
type Compiler struct {
	timeout time.Duration
	v0, v1  *ast.Capabilities
	held    map[[sha256.Size]byte]*program
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
type UnheldRulesError struct{ Digest [sha256.Size]byte }

func (e *UnheldRulesError) Error() string {
	return fmt.Sprintf("compile policy: rules sha256:%x are not held by this guest, use the full form", e.Digest)
}

// ErrCompilePanic is wrapped by the error of a text on which the parser or compiler panicked.
var ErrCompilePanic = errors.New("policy compiler panicked")

// NewCompiler compiles the held rules. It fails if one of them does not compile.
func NewCompiler(opts CompilerOptions) (*Compiler, error) {
	c := &Compiler{
		timeout: opts.Timeout,
		v0:      capabilities(ast.RegoV0),
		v1:      capabilities(ast.RegoV1),
		held:    make(map[[sha256.Size]byte]*program, len(opts.HeldRules)),
	}
	if c.timeout <= 0 {
		c.timeout = DefaultTimeout
	}
	for i, text := range opts.HeldRules {
		if err := CheckText(text); err != nil {
			return nil, fmt.Errorf("held rules %d: %w", i, err)
		}
		p, err := c.build(bytes.Clone(text), true)
		if err != nil {
			return nil, fmt.Errorf("held rules %d: %w", i, err)
		}
		c.held[sha256.Sum256(text)] = p
	}
	return c, nil
}

// Compile checks the bounds of text, parses it (Rego v0 first, v1 if that fails), and prepares it for evaluation. The text is
// copied. Errors are the ErrText sentinels, *CompileError, *UnheldRulesError, ErrCompilePanic and that of ctx. When ctx ends
// first, the compilation is left to finish by itself.
func (c *Compiler) Compile(ctx context.Context, text []byte) (*Policy, error) {
	if err := CheckText(text); err != nil {
		return nil, fmt.Errorf("compile policy: %w", err)
	}
	type result struct {
		policy *Policy
		err    error
	}
	done := make(chan result, 1)
	text = bytes.Clone(text)
	go func() {
		var r result
		defer func() { done <- r }()
		defer recoverTo(&r.err, ErrCompilePanic)
		r.policy, r.err = c.load(ctx, text)
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, r.err
		}
		return r.policy, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("compile policy: %w", context.Cause(ctx))
	}
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
	if p, ok := splitCompact(text); ok {
		prog := c.held[p.digest]
		if prog == nil {
			return nil, &UnheldRulesError{Digest: p.digest}
		}
		return newPolicy(ctx, c, policyParts{text: text, program: prog, data: p.data})
	}
	if p, ok := splitFull(text); ok {
		prog := c.held[p.digest]
		var err error
		if prog == nil {
			prog, err = c.build(p.rules, true)
		}
		if err == nil {
			return newPolicy(ctx, c, policyParts{text: text, program: prog, data: p.data})
		}
	}
	prog, err := c.build(text, false)
	if err != nil {
		return nil, err
	}
	return newPolicy(ctx, c, policyParts{text: text, program: prog})
}

// build compiles rules as Rego v0 and, if that fails, as v1. Of two failures it reports the one that got further.
func (c *Compiler) build(rules []byte, hoisted bool) (*program, error) {
	prog, err0 := c.buildVersion(rules, ast.RegoV0, hoisted)
	if err0 == nil {
		return prog, nil
	}
	prog, err1 := c.buildVersion(rules, ast.RegoV1, hoisted)
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

// buildVersion parses and compiles rules. With hoisted set, policy_data is not a rule but a base document, which the rules may
// name as if it were one.
func (c *Compiler) buildVersion(rules []byte, version ast.RegoVersion, hoisted bool) (*program, *stagedError) {
	caps := c.v0
	if version == ast.RegoV1 {
		caps = c.v1
	}
	module, err := ast.ParseModuleWithOpts("policy.rego", string(rules), ast.ParserOptions{RegoVersion: version, Capabilities: caps})
	if err != nil {
		return nil, staged(0, err)
	}
	if !module.Package.Path.Equal(policyPackage) {
		loc := module.Package.Location
		return nil, &stagedError{stage: 1, CompileError: CompileError{
			Line: loc.Row, Column: loc.Col, Code: "package_error", Message: "the package must be agent_policy"}}
	}
	if hoisted {
		if err := importData(module); err != nil {
			return nil, err
		}
	}
	prog := &program{module: module, caps: caps, prints: callsPrint(module)}
	if err := prog.compile(); err != nil {
		return nil, staged(1, err)
	}
	return prog, nil
}

// importData lets the rules of module name the base document policy_data by its bare name.
func importData(module *ast.Module) *stagedError {
	for _, rule := range module.Rules {
		if rule.Head.Ref()[0].Value.Compare(ast.Var(dataName)) == 0 {
			return &stagedError{stage: 1, CompileError: CompileError{
				Line: rule.Location.Row, Column: rule.Location.Col, Code: "policy_data_error", Message: "rules must not define policy_data"}}
		}
	}
	for _, imp := range module.Imports {
		if imp.Name().Compare(ast.Var(dataName)) == 0 {
			if ref, ok := imp.Path.Value.(ast.Ref); ok && ref.Equal(policyData) {
				return nil
			}
			return &stagedError{stage: 1, CompileError: CompileError{
				Line: imp.Location.Row, Column: imp.Location.Col, Code: "policy_data_error", Message: "rules must not import another policy_data"}}
		}
	}
	module.Imports = append(module.Imports, &ast.Import{Path: ast.NewTerm(policyData.Copy()), Location: module.Package.Location})
	return nil
}

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
	e.Code, e.Message = one.Code, OneLine(message, 200)
	if one.Location != nil {
		e.Line, e.Column = one.Location.Row, one.Location.Col
	}
	return e
}
