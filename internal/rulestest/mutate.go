// SPDX-License-Identifier: Apache-2.0

package rulestest

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
)

// Change is what is done to one leaf of a request.
type Change string

// Values of Change. Append, Prefix and Empty are of strings, Flip of booleans, PlusOne of numbers, Drop, Repeat and Clear of
// lists and maps, Set of nulls and empty lists, and of a key that a map does not have.
const (
	Append  Change = "append"
	Prefix  Change = "prefix"
	Empty   Change = "empty"
	Flip    Change = "flip"
	PlusOne Change = "plus one"
	Drop    Change = "drop"
	Repeat  Change = "repeat"
	Clear   Change = "clear"
	Set     Change = "set"
)

// Changes returns every kind of change.
func Changes() []Change {
	return []Change{Append, Prefix, Empty, Flip, PlusOne, Drop, Repeat, Clear, Set}
}

// Mutation is a request that differs from an allowed one in a single leaf.
type Mutation struct {
	Change  Change
	Path    string  // field path without indices and map keys: "OCI.Mounts[].source"
	Where   string  // the same with them: "OCI.Mounts[3].source"
	Value   any     // what is there now
	Request Request // changes when the next is made
}

// Mutations makes every single-leaf change of a request, in a fixed order, and none twice: an
// empty string has one text put to it, and a list of one item is cleared, not dropped from too. Under
// guest pull the annotations travel twice; a change of one is made in both places,
// or else only their equality would be tried.
func Mutations(r Request) iter.Seq[Mutation] {
	return func(yield func(Mutation) bool) {
		m := &mutator{kind: r.Kind, root: plain(r.Input).(map[string]any), yield: yield}
		m.walk(place{}, m.root, func(any) {})
	}
}

// plain makes numbers json.Number and lists []any, by way of JSON.
func plain(v any) any {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // inputs are JSON
	}
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.UseNumber()
	var out any
	if err := dec.Decode(&out); err != nil {
		panic(err)
	}
	return out
}

// place is where in the request a value is, without and with indices.
type place struct{ path, where string }

func (p place) field(name string) place {
	if p.path == "" {
		return place{name, name}
	}
	return place{p.path + "." + name, p.where + "." + name}
}

func (p place) item(i int) place {
	return place{p.path + "[]", fmt.Sprintf("%s[%d]", p.where, i)}
}

func (p place) key(name string) place {
	return place{p.path + "[" + name + "]", p.where + "[" + name + "]"}
}

// keyed are the fields that are maps and not messages.
var keyed = []string{annotations, "OCI.Linux.Sysctl"}

type mutator struct {
	kind  string
	root  map[string]any
	yield func(Mutation) bool
	done  bool
}

// try hands out the request with a value put in place, then restores it.
func (m *mutator) try(change Change, at place, value, old any, set func(any)) {
	if m.done {
		return
	}
	set(value)
	restore := m.metadata(at)
	m.done = !m.yield(Mutation{change, at.path, at.where, value, Request{m.kind, m.root}})
	restore()
	set(old)
}

// annotations is the path of the map that the metadata of an image pull repeats.
const annotations = "OCI.Annotations"

// metadata repeats changed annotations in the image pull. It returns what undoes that.
func (m *mutator) metadata(at place) (undo func()) {
	storages, _ := m.root["storages"].([]any)
	if !strings.HasPrefix(at.path, annotations) || len(storages) == 0 {
		return func() {}
	}
	pull := storages[0].(map[string]any)
	if pull["driver"] != "image_guest_pull" {
		return func() {}
	}
	old := pull["driver_options"]
	metadata, err := json.Marshal(map[string]any{"metadata": m.root["OCI"].(map[string]any)["Annotations"]})
	if err != nil {
		panic(err) // it came from JSON
	}
	pull["driver_options"] = []any{"image_guest_pull=" + string(metadata)}
	return func() { pull["driver_options"] = old }
}

func (m *mutator) walk(at place, v any, set func(any)) {
	switch v := v.(type) {
	case string:
		m.try(Append, at, v+"x", v, set)
		if v != "" {
			m.try(Prefix, at, "x"+v, v, set)
			m.try(Empty, at, "", v, set)
		}
	case bool:
		m.try(Flip, at, !v, v, set)
	case json.Number:
		n, err := v.Int64()
		if err == nil {
			m.try(PlusOne, at, n+1, v, set)
		}
	case nil:
		m.try(Set, at, map[string]any{}, v, set)
	case []any:
		m.list(at, v, set)
	case map[string]any:
		m.object(at, v, set)
	}
}

func (m *mutator) list(at place, v []any, set func(any)) {
	if len(v) == 0 {
		m.try(Set, at, []any{map[string]any{}}, v, set)
		return
	}
	m.try(Clear, at, []any{}, v, set)
	for i := range v {
		if len(v) > 1 {
			m.try(Drop, at.item(i), slices.Delete(slices.Clone(v), i, i+1), v, set)
		}
		m.try(Repeat, at.item(i), slices.Insert(slices.Clone(v), i, v[i]), v, set)
		m.walk(at.item(i), v[i], func(value any) { v[i] = value })
	}
}

func (m *mutator) object(at place, v map[string]any, set func(any)) {
	isMap := slices.Contains(keyed, at.path)
	if isMap {
		if len(v) > 0 {
			m.try(Clear, at, map[string]any{}, v, set)
		}
		more := maps.Clone(v)
		more["x.example/more"] = "x"
		m.try(Set, at, more, v, set)
	}
	for _, name := range slices.Sorted(maps.Keys(v)) {
		next := at.field(name)
		if isMap {
			next = at.key(name)
			rest := maps.Clone(v)
			delete(rest, name)
			if len(rest) > 0 {
				m.try(Drop, next, rest, v, set)
			}
		}
		m.walk(next, v[name], func(value any) { v[name] = value })
	}
}
