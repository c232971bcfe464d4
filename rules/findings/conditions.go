// SPDX-License-Identifier: Apache-2.0

package findings

import (
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// condition writes what can be found where a condition failed.
func (w *writer) condition(s scope, expr *ast.Expr, n notes) {
	if _, ok := n["secret"]; ok {
		s.secret = true
	}
	if every, ok := expr.Terms.(*ast.Every); ok {
		w.every(s, every, n)
		return
	}
	if list, ok := w.distinct(expr); ok {
		w.repeated(s, list, n)
		return
	}
	if items, ok := counted(s, w, expr, n); ok {
		w.items(s, items, n)
		return
	}
	if n["wanted"] != "" || n["says"] != "" || n["one of"] != "" {
		w.noted(s, w.place(s, expr), n, w.failing(s, expr))
		return
	}
	if name, args := asked(expr); len(w.rules.named[name]) > 0 && !expr.Negated {
		if absent := n["absent"]; absent != "" {
			w.noted(s, finding{}, notes{"at": n["at"], "wanted": absent, "got": n["got"]}, "not "+w.termText(s, args[0]))
		}
		w.rule(s, expr, args, w.rules.named[name])
		return
	}
	w.builtin(s, expr, n)
}

// asked is the rule or function that a condition consists of.
func asked(expr *ast.Expr) (string, []*ast.Term) {
	switch t := expr.Terms.(type) {
	case *ast.Term:
		if v, ok := t.Value.(ast.Var); ok {
			return string(v), nil
		}
	case []*ast.Term:
		return t[0].String(), t[1:]
	}
	return "", nil
}

// place is the first part of a condition that has a place in the request.
func (w *writer) place(s scope, expr *ast.Expr) finding {
	if term, path := w.somePath(s, expr); term != nil {
		return finding{path: path, got: value(w.termText(s, term))}
	}
	return finding{}
}

// placeIn is a place if there is one, else the first in a rule's body.
func (w *writer) placeIn(s scope, place finding, r *rule) finding {
	for i := 0; place.path == "" && i < len(r.Body); i++ {
		place = w.place(s, r.Body[i])
	}
	return place
}

// noted writes a finding that comments word, at a place if they name none.
func (w *writer) noted(s scope, f finding, n notes, failing ...string) {
	if words, ok := n["says"]; ok {
		w.emit(s, finding{wanted: w.phrase(s, words)}, failing...)
		return
	}
	if at := n["at"]; at != "" {
		f = finding{path: w.join(s, at)}
		if !strings.ContainsAny(at, "{[$") {
			f.got = value("input." + at)
		}
	}
	if f.wanted = w.phrase(s, n["wanted"]); n["one of"] != "" {
		f.wanted = `{"one of": ` + w.expression(s, n["one of"]) + `}`
	}
	if n["got"] != "" {
		f.got = w.phrase(s, n["got"])
	}
	w.emit(s, f, failing...)
}

// value is what an expression gives, or that nothing is there.
func value(text string) string { return "one([v | v := " + text + "])" }

// rule looks into a rule or function: at all its alternatives, or at what its comments say of all.
func (w *writer) rule(s scope, expr *ast.Expr, args []*ast.Term, named []*rule) {
	if first := named[0]; first.notes["wanted"] != "" || first.notes["says"] != "" || first.notes["one of"] != "" {
		in, _ := w.enter(s, first, args)
		w.noted(in, w.placeIn(in, w.place(s, expr), first), first.notes, w.failing(s, expr))
		return
	}
	place, failing := w.place(s, expr), w.failing(s, expr)
	if len(named) > 1 {
		s = s.with(failing) // or those of its alternatives that failed would be found where another holds
	}
	for _, r := range named {
		in, ok := w.enter(s, r, args)
		if !ok {
			continue
		}
		if noted := r.notes["wanted"] != "" || r.notes["says"] != ""; noted {
			in = w.guards(in, r)
			w.noted(in, w.placeIn(in, place, r), r.notes, failing)
			continue
		}
		for i, e := range r.Body {
			if _, ok := e.Terms.(*ast.SomeDecl); ok {
				w.group(in, r.Body[i:])
				break
			}
			in = w.step(in, in, e)
		}
	}
}

// enter gives the parameters of a rule the values of the arguments.
func (w *writer) enter(s scope, r *rule, args []*ast.Term) (scope, bool) {
	in := s.inner()
	in.lines = r.lines
	for v := range in.names { // a rule sees none of the variables of who asks it
		delete(in.names, v)
		delete(in.paths, v)
		delete(in.asks, v)
	}
	for i, param := range r.Head.Args {
		v, ok := param.Value.(ast.Var)
		if !ok || i >= len(args) {
			return in, false
		}
		if v.IsWildcard() || strings.HasPrefix(string(v), "$") {
			continue
		}
		in.asks[v] = w.depends(s, args[i])
		if path, ok := w.path(s, args[i]); ok {
			in.paths[v] = path
		}
		if arg, ok := args[i].Value.(ast.Var); ok {
			if in.names[v] = arg; s.names[arg] != "" {
				in.names[v] = s.names[arg]
			}
			continue
		}
		in.names[v] = w.name(v)
		in = in.with(string(in.names[v]) + " := " + w.termText(s, args[i]))
	}
	return in, true
}

// guards takes on what a rule says of when it applies.
func (w *writer) guards(s scope, r *rule) scope {
	for _, e := range r.Body {
		if _, ok := e.Terms.(*ast.SomeDecl); ok {
			break
		}
		if _, where := r.lines[e.Location.Row]["where"]; e.IsAssignment() || where || !w.depends(s, e) {
			s = w.step(s, s, e)
		}
	}
	return s
}

// group deals with conditions that hold together for some item: which of them fails is not to say.
func (w *writer) group(s scope, body ast.Body) {
	var texts []string
	var path string
	var term *ast.Term
	for _, e := range body {
		texts = append(texts, w.text(s, e))
		if t, p := w.somePath(s, e); p != "" && term == nil {
			term, path = t, p
		}
	}
	if term != nil {
		w.emit(s, finding{path: path, wanted: `{"phrase": "another"}`, got: value(w.termText(s, term))}, "count([1 | "+strings.Join(texts, "; ")+"]) == 0")
	}
}

// every goes through the items.
func (w *writer) every(s scope, every *ast.Every, n notes) {
	in := s.inner()
	key, item := "", every.Value.Value.(ast.Var)
	base, known := w.path(s, every.Domain)
	in.names[item], in.asks[item] = w.name(item), w.depends(s, every.Domain)
	delete(in.paths, item)
	if every.Key != nil {
		k := every.Key.Value.(ast.Var)
		in.names[k], in.asks[k] = w.name(k), false
		key = string(in.names[k])
	} else {
		key = string(w.name("i"))
	}
	domain := w.termText(s, every.Domain)
	in = in.with("some " + key + ", " + string(in.names[item]) + " in " + domain)
	switch {
	case n["item"] != "":
		in.paths[item] = w.join(in, n["item"])
	case known:
		in.paths[item] = merge(base, `concat("", ["[", said(`+key+`), "]"])`)
	}
	for _, e := range every.Body {
		if e.IsAssignment() {
			in = w.assign(in, e)
			continue
		}
		notes := in.lines[e.Location.Row]
		if len(notes) > 0 && notes["at"] == "" && n["item"] != "" && notes["wanted"]+notes["absent"] != "" {
			notes = clone(notes)
			notes["at"] = "$" + string(item)
		}
		w.condition(in, e, notes)
	}
}

// counted is the set that count(set) == 0 counts, or that a note names.
func counted(s scope, w *writer, expr *ast.Expr, n notes) (string, bool) {
	if n["items"] != "" {
		return w.expression(s, n["items"]), true
	}
	if n["item"] == "" || !isCall(expr, "equal") {
		return "", false
	}
	count, ok := expr.Operand(0).Value.(ast.Call)
	if !ok || count[0].String() != "count" || expr.Operand(1).Value.Compare(ast.Number("0")) != 0 {
		return "", false
	}
	return w.termText(s, count[1]), true
}

// items writes a finding for each item that should not be.
func (w *writer) items(s scope, set string, n notes) {
	in := s.inner()
	in.names["item"], in.asks["item"] = w.name("item"), true
	in = in.with("some " + string(in.names["item"]) + " in " + set)
	w.emit(in, finding{path: w.join(in, n["item"]), wanted: w.phrase(in, n["wanted"]), got: w.phrase(in, n["got"])})
}

// distinct recognises count({f(x) | some x in list}) == count(list).
func (w *writer) distinct(expr *ast.Expr) (*ast.SetComprehension, bool) {
	if !expr.IsEquality() && !isCall(expr, "equal") {
		return nil, false
	}
	left, ok := expr.Operand(0).Value.(ast.Call)
	right, ok2 := expr.Operand(1).Value.(ast.Call)
	if !ok || !ok2 || left[0].String() != "count" || right[0].String() != "count" {
		return nil, false
	}
	set, ok := left[1].Value.(*ast.SetComprehension)
	return set, ok && len(set.Body) == 1
}

func isCall(expr *ast.Expr, name string) bool {
	return expr.IsCall() && expr.Operator().String() == name
}

// repeated writes what is there more than once.
func (w *writer) repeated(s scope, set *ast.SetComprehension, n notes) {
	decl, ok := set.Body[0].Terms.(*ast.SomeDecl)
	if !ok {
		return
	}
	in, again := s.inner(), s.inner()
	for _, symbol := range decl.Symbols {
		if call, ok := symbol.Value.(ast.Call); ok {
			v := call[1].Value.(ast.Var)
			in.names[v], again.names[v] = w.name(v), w.name(v)
		}
	}
	in = in.with(w.text(in, set.Body[0]))
	more := "count([1 | " + w.text(again, set.Body[0]) + "; " + w.termText(again, set.Term) + " == " + w.termText(in, set.Term) + "]) > 1"
	w.emit(in, finding{path: w.join(in, n["item"]), wanted: `{"phrase": "once"}`, got: `{"phrase": "twice"}`}, more)
}

// builtin deals with conditions of the language itself.
func (w *writer) builtin(s scope, expr *ast.Expr, n notes) {
	failing := w.failing(s, expr)
	name := ""
	if expr.IsCall() {
		name = expr.Operator().String()
	}
	switch {
	case (name == "equal" || name == "eq") && !expr.Negated:
		w.equality(s, expr.Operand(0), expr.Operand(1), n, failing)
	case name == "object.subset" && !expr.Negated:
		w.subset(s, expr.Operand(0), expr.Operand(1), n)
	case name == "internal.member_2":
		w.member(s, expr, failing)
	case name == "regex.match":
		if path, ok := w.path(s, expr.Operand(1)); ok {
			wanted := w.termText(s, expr.Operand(0))
			if expr.Negated {
				wanted = `{"phrase": concat(" ", ["what does not match", ` + wanted + `])}`
			}
			w.emit(s, finding{path: path, wanted: wanted, got: value(w.termText(s, expr.Operand(1)))}, failing)
		}
	default:
		if term, path := w.somePath(s, expr); path != "" {
			w.emit(s, finding{path: path, wanted: `{"phrase": "another"}`, got: value(w.termText(s, term))}, failing)
		}
	}
}

func (w *writer) member(s scope, expr *ast.Expr, failing string) {
	path, ok := w.path(s, expr.Operand(0))
	if !ok {
		return
	}
	list := w.termText(s, expr.Operand(1))
	wanted := `{"one of": [v | some v in ` + list + `]}`
	if expr.Negated {
		wanted = `{"phrase": concat("", ["another than ", concat(", ", [said(v) | some v in ` + list + `])])}`
	}
	w.emit(s, finding{path: path, wanted: wanted, got: value(w.termText(s, expr.Operand(0)))}, failing)
}

// equality writes the side that has a path as what is there, and the other as what is wanted.
func (w *writer) equality(s scope, a, b *ast.Term, n notes, failing string) {
	as, isArray := a.Value.(*ast.Array)
	bs, isArray2 := b.Value.(*ast.Array)
	if isArray && isArray2 && as.Len() == bs.Len() {
		for i := range as.Len() {
			w.equality(s, as.Elem(i), bs.Elem(i), notes{}, "not "+w.termText(s, as.Elem(i))+" == "+w.termText(s, bs.Elem(i)))
		}
		return
	}
	if w.members(s, a, b) || w.members(s, b, a) {
		return
	}
	if count, ok := a.Value.(ast.Call); ok && count[0].String() == "count" {
		if other, ok := b.Value.(ast.Call); ok && other[0].String() == "count" {
			a, b = count[1], other[1]
		}
	}
	path, ok := w.path(s, a)
	if !ok {
		if other, known := w.path(s, b); known {
			a, b, path, ok = b, a, other, true
		}
	}
	if n["at"] != "" {
		path = w.join(s, n["at"])
		if !w.depends(s, a) && w.depends(s, b) {
			a, b = b, a
		}
		ok = true
	}
	if ok {
		w.emit(s, finding{path: path, wanted: w.termText(s, b), got: value(w.termText(s, a))}, failing)
	}
}

// members compares with a rule that is an object member by member, since each is elsewhere in the request.
func (w *writer) members(s scope, a, b *ast.Term) bool {
	v, ok := a.Value.(ast.Var)
	if !ok || len(w.rules.named[string(v)]) != 1 {
		return false
	}
	head := w.rules.named[string(v)][0].Head
	if head.Value == nil || len(head.Args) > 0 {
		return false
	}
	object, ok := head.Value.Value.(ast.Object)
	if !ok {
		return false
	}
	object.Foreach(func(key, _ *ast.Term) {
		got, wanted := w.termText(s, a)+"["+key.String()+"]", w.termText(s, b)+"["+key.String()+"]"
		if path, ok := w.rulePath(v, []*ast.Term{key}); ok {
			w.emit(s, finding{path: path, wanted: wanted, got: value(got)}, "not "+got+" == "+wanted)
		}
	})
	return true
}

// subset finds the places that differ.
func (w *writer) subset(s scope, a, b *ast.Term, n notes) {
	if path, ok := w.path(s, a); ok {
		some := "some d in differences(" + path + ", " + w.termText(s, b) + ", " + w.termText(s, a) + ")"
		w.emit(s, finding{path: `trim_left(d.path, ".")`, wanted: "d.wanted", got: "d.got"}, some)
		return
	}
	if path, ok := w.path(s, b); ok {
		some := "some d in extras(" + path + ", " + w.termText(s, a) + ", " + w.termText(s, b) + ", " + quote(n["unknown"]) + ")"
		w.emit(s, finding{path: "d.path", wanted: "d.wanted", got: "d.got"}, some)
	}
}
