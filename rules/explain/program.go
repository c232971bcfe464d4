package explain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown"

	"portcullis/engine/policytext"
	"portcullis/rules"
)

// ErrRules is returned for a compact policy whose rules this program does not hold.
var ErrRules = errors.New("the policy names rules that are not held here; use its full form")

// New prepares a policy text, full or compact.
func New(text []byte) (*Explainer, error) {
	source, data, err := takeApart(text)
	if err != nil {
		return nil, fmt.Errorf("explain policy: %w", err)
	}
	p, err := compile(source, rules.Reasons())
	plain := err != nil || !p.has("findings") || !p.has("container")
	if plain {
		if p, err = compile(source, ""); err != nil {
			return nil, fmt.Errorf("explain policy: %w", err)
		}
	}
	root := map[string]any{"pstate": map[string]any{}}
	if data != nil {
		root["agent_policy"] = map[string]any{"policy_data": data}
	}
	p.store = inmem.NewFromObjectWithOpts(root, inmem.OptReturnASTValuesOnRead(true))
	return &Explainer{policy: p, plain: plain}, nil
}

// takeApart gives the rules and, for the compact form, the data beside them.
func takeApart(text []byte) (source string, data any, err error) {
	doc, err := policytext.Split(text)
	if err != nil || doc.Form != policytext.Compact {
		return string(text), nil, nil // a policy of another make; it compiles or it does not
	}
	for _, held := range []string{rules.Text(), rules.UpstreamText()} {
		if policytext.DigestOf([]byte(held)) == doc.Digest {
			data, err = decode(doc.Data)
			return held, data, err
		}
	}
	return "", nil, fmt.Errorf("%w: %s", ErrRules, doc.Digest)
}

// program is a compiled policy, with the reasons of our rules beside it where they fit.
type program struct {
	module   *ast.Module // the policy as parsed
	rules    []*ast.Rule // its rules and those of the reasons, as parsed
	caps     *ast.Capabilities
	compiler *ast.Compiler
	store    storage.Store
}

// compile tries Rego v0, then v1; of two errors the first is told.
func compile(source, reasons string) (*program, error) {
	p, err := compileAs(ast.RegoV0, source, reasons)
	if err == nil {
		return p, nil
	}
	if p, errV1 := compileAs(ast.RegoV1, source, reasons); errV1 == nil {
		return p, nil
	}
	return nil, err
}

func compileAs(version ast.RegoVersion, source, reasons string) (*program, error) {
	p := &program{caps: offline(version)}
	opts := ast.ParserOptions{RegoVersion: version, Capabilities: p.caps}
	modules := map[string]*ast.Module{}
	for name, text := range map[string]string{"policy.rego": source, "reasons.rego": reasons} {
		if text == "" {
			continue
		}
		module, err := ast.ParseModuleWithOpts(name, text, opts)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", name, err)
		}
		modules[name] = module
		p.rules = append(p.rules, module.Copy().Rules...)
	}
	p.module = modules["policy.rego"].Copy()
	p.compiler = ast.NewCompiler().WithCapabilities(p.caps).WithEnablePrintStatements(true)
	if p.compiler.Compile(modules); p.compiler.Failed() {
		return nil, fmt.Errorf("compile policy: %w", p.compiler.Errors)
	}
	return p, nil
}

// offline are OPA's builtins without those that reach out of the evaluation: a
// policy is not to be trusted by who reads it.
func offline(version ast.RegoVersion) *ast.Capabilities {
	caps := ast.CapabilitiesForThisVersion(ast.CapabilitiesRegoVersion(version))
	caps.Builtins = slices.DeleteFunc(slices.Clone(caps.Builtins), func(b *ast.Builtin) bool { return b.Nondeterministic && b.Name != "print" })
	return caps
}

// has says whether the package has a rule of that name.
func (p *program) has(name string) bool {
	return slices.ContainsFunc(p.rules, func(rule *ast.Rule) bool {
		return rule.Head.Ref()[0].Value.Compare(ast.Var(name)) == 0
	})
}

// denies says whether all that the package has for a request is that it is false.
func (p *program) denies(kind string) bool {
	found := false
	for _, rule := range p.module.Rules {
		if rule.Head.Name.Compare(ast.Var(kind)) != 0 {
			continue
		}
		if rule.Head.Value == nil || rule.Head.Value.Value.Compare(ast.Boolean(false)) != 0 {
			return false
		}
		found = true
	}
	return found
}

func (p *program) setState(ctx context.Context, state any) error {
	return storage.WriteOne(ctx, p.store, storage.AddOp, storage.Path{"pstate"}, state)
}

// eval gives the value of a reference below data.agent_policy, nil if it is undefined.
func (s *session) eval(name string, path ...string) (any, error) {
	ref := ast.MustParseRef("data.agent_policy").Append(ast.StringTerm(name))
	for _, key := range path {
		ref = ref.Append(ast.StringTerm(key))
	}
	rs, err := s.query(ast.NewBody(ast.NewExpr(ast.NewTerm(ref))))
	if err != nil || len(rs) != 1 || len(rs[0].Expressions) != 1 {
		return nil, err
	}
	return plainValue(rs[0].Expressions[0].Value)
}

// query evaluates a body as it would stand in the policy.
func (s *session) query(body ast.Body, opts ...rego.EvalOption) (rego.ResultSet, error) {
	prepared, err := rego.New(
		rego.ParsedQuery(body),
		rego.ParsedPackage(s.program.module.Package),
		rego.ParsedImports(s.program.module.Imports),
		rego.Compiler(s.program.compiler),
		rego.Store(s.program.store),
		rego.GenerateJSON(func(t *ast.Term, _ *rego.EvalContext) (any, error) { return t.Value, nil }),
	).PrepareForEval(s.ctx)
	if err != nil {
		return nil, err
	}
	rs, err := prepared.Eval(s.ctx, append(opts, rego.EvalParsedInput(s.value))...)
	var halt *topdown.Error
	if errors.As(err, &halt) {
		return nil, nil // a conflict or another error of the policy's: it decides nothing
	}
	return rs, err
}

// plainValue is an evaluated value as decoded JSON; sets are sorted lists.
func plainValue(v any) (any, error) {
	value, ok := v.(ast.Value)
	if !ok {
		return v, nil
	}
	return ast.JSONWithOpt(value, ast.JSONOpt{SortSets: true})
}

// title makes the name of a rule that checks into the name of a check.
func title(rule string) string {
	rule = strings.TrimSuffix(rule, "_ok")
	for _, family := range []string{"create_", "exec_", "sandbox_", "copy_"} {
		rule = strings.TrimPrefix(rule, family)
	}
	return strings.ReplaceAll(rule, "_", " ")
}
