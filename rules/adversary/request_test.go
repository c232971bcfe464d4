// SPDX-License-Identifier: Apache-2.0

package adversary_test

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/agentproto"
)

// object is a JSON object; numbers in it are json.Number.
type object = map[string]any

// answered is what the policy is told when the agent has answered a WaitProcess.
const answered = "WaitProcessResponse"

// request is one request to the agent, or an answer of it. It does not change.
type request struct {
	kind   string
	input  object
	text   string // kind and input
	parsed ast.Value
	facts  map[string]any // what was worked out of it
}

func (r *request) value() (ast.Value, error) {
	if r.parsed == nil {
		v, err := ast.InterfaceToValue(r.input)
		if err != nil {
			return nil, err
		}
		r.parsed = v
	}
	return r.parsed, nil
}

// id is the container that it names.
func (r *request) id() string { s, _ := r.input["container_id"].(string); return s }

// comes is false for what no message can hold, a port below zero for instance: it never reaches the rules.
func (r *request) comes() bool {
	kind, ok := agentproto.MessageByName(r.kind)
	if !ok || r.kind == answered || r.kind == "CopyFileRequest" {
		return true // an answer, and what has more than the message
	}
	_, err := agentproto.FromInput(kind, []byte(text(r.input)))
	return err == nil
}

// requests are those seen, each once.
type requests map[string]*request

// of returns the request, the same for the same input.
func (rs requests) of(kind string, input object) *request {
	key := kind + text(input)
	r := rs[key]
	if r == nil {
		r = &request{kind: kind, input: parse(text(input)), text: key, facts: map[string]any{}}
		if len(rs) > mostEdges {
			clear(rs)
		}
		rs[key] = r
	}
	return r
}

// work returns what a function works out of a request, once.
func work[T any](r *request, name string, f func() T) T {
	if v, ok := r.facts[name]; ok {
		return v.(T)
	}
	v := f()
	r.facts[name] = v
	return v
}

func at(v any, steps ...string) any {
	for _, step := range steps {
		o, _ := v.(object)
		v = o[step]
	}
	return v
}

func list(v any) []any { l, _ := v.([]any); return l }

func str(v any) string { s, _ := v.(string); return s }

// number is a whole number, or -1 for what is none.
func number(v any) int64 {
	n, ok := v.(json.Number)
	if !ok {
		return -1
	}
	i, err := n.Int64()
	if err != nil {
		return -1
	}
	return i
}

func text(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // it is JSON
	}
	return string(raw)
}

func parse(raw string) object {
	dec := json.NewDecoder(strings.NewReader(raw))
	dec.UseNumber()
	var out object
	if err := dec.Decode(&out); err != nil {
		panic(err) // it was JSON
	}
	return out
}

func clone(o object) object { return parse(text(o)) }

// renamed is an input with one text in place of another, wherever it stands.
func renamed(input object, from, to string) object {
	if from == "" {
		return clone(input)
	}
	quoted := func(s string) string { return strings.Trim(text(s), `"`) }
	return parse(strings.ReplaceAll(text(input), quoted(from), quoted(to)))
}

// same is true for equal JSON.
func same(a, b any) bool { return bytes.Equal([]byte(text(a)), []byte(text(b))) }
