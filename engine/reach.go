// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// footprint is what the rules behind an entry point can read, found without running them. It errs to the side of more.
type footprint struct {
	whole bool      // a `with` makes it impossible to say
	input []ast.Ref // distinct references to input
	data  []ast.Ref // distinct references to data
}

// footprintOf walks every rule that the named ones may depend on.
func footprintOf(compiler *ast.Compiler, names ...string) *footprint {
	f := &footprint{}
	seen := map[*ast.Rule]bool{}
	var visit func(rule *ast.Rule)
	visit = func(rule *ast.Rule) {
		for ; rule != nil && !seen[rule]; rule = rule.Else {
			seen[rule] = true
			f.add(rule)
			for dep := range compiler.Graph.Dependencies(rule) {
				visit(dep.(*ast.Rule))
			}
		}
	}
	for _, rule := range compiler.Modules[moduleName].Rules {
		if slices.Contains(names, ruleName(rule)) {
			visit(rule)
		}
	}
	return f
}

// add records the references in one rule.
func (f *footprint) add(rule *ast.Rule) {
	var vis *ast.GenericVisitor
	vis = ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.With:
			f.whole = true
		case ast.Ref:
			if head, ok := x[0].Value.(ast.Var); ok {
				f.record(head, x)
			} else {
				vis.Walk(x[0])
			}
			for _, t := range x[1:] {
				vis.Walk(t)
			}
			return true
		case ast.Var: // a bare root is the whole document
			f.record(x, ast.Ref{ast.NewTerm(x)})
		}
		return false
	})
	vis.Walk(rule)
}

func (f *footprint) record(head ast.Var, ref ast.Ref) {
	list := &f.data
	switch {
	case head.Equal(ast.InputRootDocument.Value):
		list = &f.input
	case !head.Equal(ast.DefaultRootDocument.Value):
		return
	}
	if !slices.ContainsFunc(*list, func(r ast.Ref) bool { return r.Equal(ref) }) {
		*list = append(*list, ref)
	}
}

// touches says whether one of refs may read what lies at path below its root, or something that contains it.
func touches(refs []ast.Ref, path []string) bool {
	return slices.ContainsFunc(refs, func(ref ast.Ref) bool {
		for i, key := range path {
			if i+1 >= len(ref) {
				return true
			}
			if s, ok := ref[i+1].Value.(ast.String); ok {
				if string(s) != key {
					return false
				}
			} else if !readsAnyKey(ref[i+1].Value) {
				return false
			}
		}
		return true
	})
}

// readsAnyKey says whether a reference element other than a string constant may turn out to be a string.
func readsAnyKey(v ast.Value) bool {
	switch v.(type) {
	case ast.Number, ast.Boolean, ast.Null:
		return false
	}
	return true
}
