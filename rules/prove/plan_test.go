// SPDX-License-Identifier: Apache-2.0

package prove_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/internal/rulestest"
	"portcullis/rules/policydata"
)

// step is a request of a plan.
type step struct {
	kind   string
	value  ast.Value
	about  string // what was changed
	id     uint64
	carry  bool // it happens, if it is allowed
	usual  bool // as a runtime sends it
	common bool // of plans that several pairs follow
}

// plan is what a host might do: a pod's life, with changed requests beside it, or a changed life.
type plan []*step

// after names the sequence that this request ends, by what has happened before it.
func (s *step) after(prefix uint64) uint64 {
	h := fnv.New64a()
	var raw []byte
	raw = binary.LittleEndian.AppendUint64(raw, prefix)
	raw = binary.LittleEndian.AppendUint64(raw, s.id)
	_, _ = h.Write(raw)
	return h.Sum64()
}

// request is one that plans are made of, read once.
type request struct {
	rulestest.Request
	id    uint64 // by what it holds
	value ast.Value
	spots spots
}

func prepared(all []rulestest.Request) ([]*request, error) {
	out := make([]*request, len(all))
	for i, r := range all {
		value, err := ast.InterfaceToValue(r.Input)
		if err != nil {
			return nil, err
		}
		text, err := json.Marshal(r.Input)
		if err != nil {
			return nil, err
		}
		h := fnv.New64a()
		_, _ = h.Write(append(text, r.Kind...))
		out[i] = &request{Request: r, id: h.Sum64(), value: value}
	}
	return out, nil
}

// planner draws plans.
type planner struct {
	rand   *rand.Rand
	news   []string // which one policy has and the other has not
	words  []string // these, and others that may mean something
	lives  [][]*request
	extras []*request
	common bool
}

// newPlanner makes one of the lives of policies' pods, with words that are worth to be tried.
func newPlanner(r *rand.Rand, news []string, policies ...*policydata.Policy) (*planner, error) {
	p := &planner{rand: r, news: news, words: slices.Concat(news, news, news, usualWords()), common: len(policies) == 1}
	for _, policy := range policies {
		lived, err := prepared(life(policy))
		if err != nil {
			return nil, err
		}
		p.lives = append(p.lives, lived)
		more, err := extras(policy, p.words)
		if err != nil {
			return nil, err
		}
		further, err := prepared(more)
		if err != nil {
			return nil, err
		}
		p.extras = append(p.extras, further...)
	}
	return p, nil
}

func (p *planner) plan() plan {
	lived := pick(p.rand, p.lives)
	if p.rand.IntN(3) == 0 {
		return p.instead(lived)
	}
	return p.beside(lived)
}

// beside is a pod's life with changed requests, which do not happen, before some of its requests.
func (p *planner) beside(requests []*request) plan {
	var out plan
	for _, r := range requests {
		for range p.rand.IntN(6) {
			out = append(out, p.changed(r, 1+p.rand.IntN(2), false))
		}
		if p.rand.IntN(2) == 0 {
			out = append(out, p.as(pick(p.rand, p.extras), false, "one more request"))
		}
		out = append(out, p.as(r, true, "a request of the pod's life"))
	}
	return out
}

// instead is a changed life: requests are changed, left out, doubled, exchanged and put in.
func (p *planner) instead(requests []*request) plan {
	requests = slices.Clone(requests)
	for range 1 + p.rand.IntN(4) {
		i := p.rand.IntN(len(requests))
		switch p.rand.IntN(4) {
		case 0:
			requests = slices.Delete(requests, i, i+1)
		case 1:
			requests = slices.Insert(requests, p.rand.IntN(len(requests)), requests[i])
		case 2:
			k := p.rand.IntN(len(requests))
			requests[i], requests[k] = requests[k], requests[i]
		case 3:
			requests = slices.Insert(requests, i, pick(p.rand, p.extras))
		}
		if len(requests) == 0 {
			return nil
		}
	}
	var out plan
	for _, r := range requests {
		if p.rand.IntN(5) == 0 {
			out = append(out, p.changed(r, 1+p.rand.IntN(3), true))
		} else {
			out = append(out, p.as(r, true, "a request of a changed life"))
		}
	}
	return out
}

func (p *planner) as(r *request, carry bool, about string) *step {
	return p.step(r, r.value, about, "", carry)
}

// step names a request by what it was made of.
func (p *planner) step(r *request, value ast.Value, about, change string, carry bool) *step {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%x %s %v", r.id, change, carry)
	return &step{kind: r.Kind, value: value, about: about, id: h.Sum64(), carry: carry, usual: change == "", common: p.common}
}

// changed is a request with some of its values changed.
func (p *planner) changed(r *request, times int, carry bool) *step {
	if r.Kind == observed {
		return p.as(r, carry, "an answer")
	}
	if r.spots.at == nil {
		r.spots = spotsByPath(r.Input)
	}
	value, told := r.value, []string{}
	for range times {
		s, to := p.change(r.spots)
		if s == nil {
			break
		}
		next, err := ast.InterfaceToValue(to)
		if err != nil {
			panic(err) // it was drawn from JSON
		}
		value = put(value, s.place, next)
		told = append(told, fmt.Sprintf("%v = %v", s.place, to))
	}
	change := strings.Join(told, ", ")
	return p.step(r, value, fmt.Sprintf("%.300s", change), change, carry)
}

// change draws a spot and another value for it: in part one more string in a list or an object, of those that are worth most.
func (p *planner) change(of spots) (*spot, any) {
	if len(p.news) > 0 && p.rand.IntN(3) == 0 {
		if s := of.pickTexts(p.rand); s != nil {
			return s, s.with(pick(p.rand, p.news))
		}
	}
	s := of.pick(p.rand)
	if s == nil {
		return nil, nil
	}
	return s, s.changed(p.rand, p.words)
}

// put is a value with another one at a place, or as it was if it has no such place any more.
func put(v ast.Value, place []any, to ast.Value) ast.Value {
	if len(place) == 0 {
		return to
	}
	switch v := v.(type) {
	case ast.Object:
		key, ok := place[0].(string)
		if !ok || v.Get(ast.StringTerm(key)) == nil {
			return v
		}
		out := ast.NewObject()
		v.Foreach(func(k, item *ast.Term) {
			if k.Value.Compare(ast.String(key)) == 0 {
				item = ast.NewTerm(put(item.Value, place[1:], to))
			}
			out.Insert(k, item)
		})
		return out
	case *ast.Array:
		i, ok := place[0].(int)
		if !ok || i >= v.Len() {
			return v
		}
		items := make([]*ast.Term, v.Len())
		for n := range items {
			items[n] = v.Elem(n)
		}
		items[i] = ast.NewTerm(put(items[i].Value, place[1:], to))
		return ast.NewArray(items...)
	}
	return v
}
