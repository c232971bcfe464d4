// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/internal/wait"
)

// lateReasons are reasons that are compiled when a request is first denied, and only so far as that request's need: all of them
// would take several times the memory of the rules that decide, in a guest where most requests are never denied.
type lateReasons struct {
	text  []byte
	opts  ast.ParserOptions // as the rules were parsed
	one   sync.Mutex        // held while some are compiled: never two at a time
	after func()            // called after each compilation; nil for nothing
}

// explanation is an entry point's part of the reasons, compiled in the background, so that a denial waits for it no longer than
// it may.
type explanation struct {
	start   sync.Once
	ready   chan struct{} // closed when queries is set, or is known to stay nil
	queries []*query
}

// explanations are the queries that may say why the named entry point denied, in order: the reasons of that name, then all.
// There are none if ctx ends before they are compiled.
func (p *program) explanations(ctx context.Context, en *entry) []*query {
	if p.late == nil {
		return []*query{en.reason(), p.reasons()}
	}
	en.late.start.Do(func() {
		go func() {
			defer close(en.late.ready)
			var err error // a denial without a reason is a denial all the same
			defer recoverTo(&err, ErrCompilePanic)
			if p.late.after != nil {
				defer p.late.after()
			}
			en.late.queries, err = p.compileReasons(en.name)
		}()
	})
	if wait.For(ctx, en.late.ready) != nil {
		return nil
	}
	return en.late.queries
}

// compileReasons compiles the reasons of one entry point with the rules that they ask.
func (p *program) compileReasons(name string) ([]*query, error) {
	p.late.one.Lock()
	defer p.late.one.Unlock()
	reasons, staged := parse(p.late.text, p.late.opts)
	if staged != nil {
		return nil, &staged.CompileError
	}
	module := p.module.Copy()
	if staged := addReasons(module, reasons); staged != nil {
		return nil, &staged.CompileError
	}
	keepReached(module, name)
	part := &program{module: module, caps: p.caps}
	compiler, err := part.compileModule(false)
	if err != nil {
		return nil, fmt.Errorf("compile reasons: %w", err)
	}
	return []*query{prepareOrNil(compiler, reasonsRule, name), prepareOrNil(compiler, reasonsRule)}, nil
}

// place is where a rule puts its value, or what a reference names: the first element below the package, and the second where it
// is known. Two empty names are everything.
type place struct{ rule, key string }

// keepReached leaves in the parsed module what reasons.<name> may ask, and what module's imports name. It errs to more.
func keepReached(module *ast.Module, name string) {
	kept := map[*ast.Rule]bool{}
	seen := map[place]bool{}
	var reach func(place)
	reach = func(to place) {
		if seen[to] {
			return
		}
		seen[to] = true
		for _, rule := range module.Rules {
			if kept[rule] || !meets(placeOf(rule.Head.Ref()), to) {
				continue
			}
			kept[rule] = true
			references(rule, reach)
		}
	}
	reach(place{reasonsRule, name})
	for _, imp := range module.Imports {
		references(imp.Path, reach)
	}
	rules := make([]*ast.Rule, 0, len(kept))
	for _, rule := range module.Rules {
		if kept[rule] {
			rules = append(rules, rule)
		}
	}
	module.Rules = rules
}

func meets(a, b place) bool {
	return a.rule == "" || b.rule == "" || a.rule == b.rule && (a.key == "" || b.key == "" || a.key == b.key)
}

// references calls found with everything in x that may be a reference to a rule.
func references(x any, found func(place)) {
	var vis *ast.GenericVisitor
	vis = ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case ast.Ref:
			found(placeOf(x))
			if _, ok := x[0].Value.(ast.Var); !ok {
				vis.Walk(x[0])
			}
			for _, t := range x[1:] {
				vis.Walk(t)
			}
			return true
		case ast.Var:
			found(placeOf(ast.Ref{ast.NewTerm(x)}))
		}
		return false
	})
	vis.Walk(x)
}

// placeOf is the place that ref names, by a rule's bare name or below data.
func placeOf(ref ast.Ref) place {
	head, ok := ref[0].Value.(ast.Var)
	switch {
	case !ok: // the parts of a call's result or the like: they are walked by themselves
		return place{rule: "\x00"}
	case !head.Equal(ast.DefaultRootDocument.Value):
		return place{string(head), text(ref, 1)}
	case len(ref) <= len(policyPackage):
		if policyPackage.HasPrefix(ref) {
			return place{}
		}
	case ref.HasPrefix(policyPackage):
		return place{text(ref, len(policyPackage)), text(ref, len(policyPackage)+1)}
	}
	for i := 1; i < len(policyPackage) && i < len(ref); i++ {
		if s := text(ref, i); s != "" && s != text(policyPackage, i) {
			return place{rule: "\x00"} // another document, such as the state
		}
	}
	return place{}
}

// text is the string at an index of ref; empty where there is none.
func text(ref ast.Ref, i int) string {
	if i >= len(ref) {
		return ""
	}
	s, _ := ref[i].Value.(ast.String)
	return string(s)
}
