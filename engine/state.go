// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"

	"portcullis/engine/jsonvalue"
)

const (
	stateName = "pstate"
	// MaxStates is how many states may be possible at the same time.
	MaxStates = 8
	// MaxState bounds the JSON of all possible states together, in bytes.
	MaxState = 1 << 20
)

// Why a state is refused.
var (
	ErrStateTooLarge  = fmt.Errorf("state-too-large: policy state is longer than %d bytes", MaxState)
	ErrStateUncertain = fmt.Errorf("state-uncertain: more than %d policy states are possible", MaxStates)
	ErrStateInvalid   = errors.New("policy state is not a list of {\"pstate\": ...} documents")
)

// State is the state of a policy in a form that can be stored. Equal states have equal JSON.
type State struct {
	// Possible holds 1 to MaxStates distinct documents {"pstate": ...}; more than one after a doubt.
	Possible []json.RawMessage `json:"possible"`
}

// document is one possible state with its deterministic JSON.
type document struct {
	value ast.Value
	json  []byte
}

func freshState() document {
	value := ast.NewObject(ast.Item(ast.StringTerm(stateName), ast.ObjectTerm()))
	return document{value: value, json: []byte(`{"pstate":{}}`)}
}

// snapshot is the data document that p's rules see in this state.
func (d document) snapshot(p *Policy) *snapshot {
	root := ast.NewObject(ast.Item(ast.StringTerm("agent_policy"), p.base))
	if obj, ok := d.value.(ast.Object); ok {
		if v := obj.Get(ast.StringTerm(stateName)); v != nil {
			root.Insert(ast.StringTerm(stateName), v)
		}
	}
	return &snapshot{root: root}
}

// patched is the state after ops, or an error; the receiver is untouched either way.
func (d document) patched(ops *ast.Array) (document, error) {
	plain, err := ast.JSON(ops) // a state holds what JSON can hold, so that a stored one reads back equal
	if err != nil {
		return document{}, err
	}
	value, err := ast.InterfaceToValue(plain)
	if err != nil {
		return document{}, err
	}
	ops, ok := value.(*ast.Array)
	if !ok {
		return document{}, errors.New("ops is not an array")
	}
	if err := checkOps(ops); err != nil {
		return document{}, err
	}
	next, err := jsonPatch(d.value, ops)
	if err != nil {
		return document{}, err
	}
	return newDocument(next)
}

func newDocument(value ast.Value) (document, error) {
	plain, err := ast.JSON(value)
	if err != nil {
		return document{}, err
	}
	text, err := json.Marshal(plain)
	if err != nil {
		return document{}, err
	}
	if len(text) > MaxState {
		return document{}, ErrStateTooLarge
	}
	return document{value: value, json: text}, nil
}

// checkOps keeps a patch to the six operations of RFC 6902 and to what lies at or below /pstate.
func checkOps(ops *ast.Array) error {
	for i := range ops.Len() {
		op, ok := ops.Elem(i).Value.(ast.Object)
		if !ok {
			return fmt.Errorf("operation %d is not an object", i)
		}
		pointers := []string{"path"}
		switch name := member(op, "op"); name {
		case "add", "remove", "replace", "test":
		case "move", "copy":
			pointers = append(pointers, "from")
		default:
			return fmt.Errorf("operation %d is of unknown kind", i)
		}
		for _, p := range pointers {
			if at := member(op, p); at != "/"+stateName && !strings.HasPrefix(at, "/"+stateName+"/") {
				return fmt.Errorf("operation %d has a %s outside /%s", i, p, stateName)
			}
		}
	}
	return nil
}

// member is a string member of obj, empty if it is missing or of another type.
func member(obj ast.Object, name string) string {
	t := obj.Get(ast.StringTerm(name))
	if t == nil {
		return ""
	}
	s, _ := t.Value.(ast.String)
	return string(s)
}

// jsonPatch applies ops with OPA's own implementation of RFC 6902.
func jsonPatch(doc ast.Value, ops *ast.Array) (ast.Value, error) {
	var out ast.Value
	operands := []*ast.Term{ast.NewTerm(doc), ast.NewTerm(ops)}
	err := topdown.GetBuiltin(ast.JSONPatch.Name)(topdown.BuiltinContext{}, operands, func(t *ast.Term) error {
		out = t.Value
		return nil
	})
	if err != nil || out == nil {
		return nil, errors.New("an operation fails") // OPA's error quotes the state
	}
	return out, nil
}

// distinct is the union of two lists of states, in order, each state once.
func distinct(a, b []document) []document {
	out := slices.Clip(slices.Clone(a))
	for _, d := range b {
		if !slices.ContainsFunc(out, func(o document) bool { return bytes.Equal(o.json, d.json) }) {
			out = append(out, d)
		}
	}
	return out
}

// checkStates holds a set of possible states to its bounds.
func checkStates(docs []document) error {
	if len(docs) > MaxStates {
		return ErrStateUncertain
	}
	size := 0
	for _, d := range docs {
		size += len(d.json)
	}
	if size > MaxState {
		return ErrStateTooLarge
	}
	return nil
}

func stateOf(docs []document) State {
	s := State{Possible: make([]json.RawMessage, len(docs))}
	for i, d := range docs {
		s.Possible[i] = bytes.Clone(d.json)
	}
	return s
}

// documents reads s back, strictly.
func (s State) documents() ([]document, error) {
	var docs []document
	for _, text := range s.Possible {
		if len(text) > MaxState {
			return nil, ErrStateTooLarge
		}
		value, err := jsonvalue.ReadStrict(text)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrStateInvalid, err)
		}
		obj, ok := value.(ast.Object)
		if !ok || obj.Len() > 1 || obj.Len() == 1 && obj.Get(ast.StringTerm(stateName)) == nil {
			return nil, ErrStateInvalid
		}
		doc, err := newDocument(value)
		if err != nil {
			return nil, err
		}
		docs = distinct(docs, []document{doc})
	}
	if len(docs) == 0 {
		return nil, ErrStateInvalid
	}
	return docs, checkStates(docs)
}
