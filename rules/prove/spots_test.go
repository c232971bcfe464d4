// SPDX-License-Identifier: Apache-2.0

package prove_test

import (
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"

	"portcullis/internal/rulestest"
	"portcullis/rules/policydata"
)

// spot is a value in a tree of JSON, and how another is put in its place. What a change makes is new: old stays as it was.
type spot struct {
	path  string // without indices, and without the names that are data
	place []any  // keys and indices
	old   any
	set   func(any)
}

// spotsOf are all values of a tree but its root.
func spotsOf(tree map[string]any) []spot {
	var out []spot
	object(&out, spot{}, tree)
	return out
}

// named are objects whose keys are data.
var named = regexp.MustCompile(`(^|\.)(containers|mounts|capabilities|paths|files|patterns|optional|hashes|arg_matches|fixed|other)$`)

func object(out *[]spot, parent spot, m map[string]any) {
	for _, key := range slices.Sorted(maps.Keys(m)) {
		at := parent.path + "." + key
		if parent.path == "" {
			at = key
		}
		if named.MatchString(parent.path) {
			at = parent.path + ".*"
		}
		visit(out, spot{at, append(slices.Clip(parent.place), key), m[key], func(v any) { m[key] = v }})
	}
}

func visit(out *[]spot, s spot) {
	*out = append(*out, s)
	switch v := s.old.(type) {
	case map[string]any:
		object(out, s, v)
	case []any:
		for i := range v {
			visit(out, spot{s.path + "[]", append(slices.Clip(s.place), i), v[i], func(item any) { v[i] = item }})
		}
	}
}

// spots are those of a tree by their paths.
type spots struct {
	paths []string
	texts []string // paths of lists and objects of strings
	at    map[string][]spot
}

func spotsByPath(tree map[string]any) spots {
	out := spots{at: map[string][]spot{}}
	for _, s := range spotsOf(tree) {
		out.at[s.path] = append(out.at[s.path], s)
	}
	out.paths = slices.Sorted(maps.Keys(out.at))
	for _, path := range out.paths {
		if slices.ContainsFunc(out.at[path], func(s spot) bool { return holdsTexts(s.old) }) {
			out.texts = append(out.texts, path)
		}
	}
	return out
}

func holdsTexts(v any) bool {
	var items []any
	switch v := v.(type) {
	case []any:
		items = v
	case map[string]any:
		items = slices.Collect(maps.Values(v))
	default:
		return false
	}
	return !slices.ContainsFunc(items, func(item any) bool { _, ok := item.(string); return !ok })
}

// pickTexts is pick among lists and objects of strings.
func (s spots) pickTexts(r *rand.Rand) *spot {
	if len(s.texts) == 0 {
		return nil
	}
	out := pick(r, s.at[pick(r, s.texts)])
	return &out
}

// with has one more string, "key=value" for a key with its value.
func (s *spot) with(text string) any {
	switch v := s.old.(type) {
	case []any:
		return append(slices.Clone(v), text)
	case map[string]any:
		key, value, _ := strings.Cut(text, "=")
		out := maps.Clone(v)
		out[key] = value
		return out
	}
	return text
}

// pick draws a path first, so that long lists are not all that is changed; nil if there is none.
func (s spots) pick(r *rand.Rand) *spot {
	if len(s.paths) == 0 {
		return nil
	}
	out := pick(r, s.at[pick(r, s.paths)])
	return &out
}

// changed is another value for a spot. Words are strings that may mean something there.
func (s *spot) changed(r *rand.Rand, words []string) any {
	switch v := s.old.(type) {
	case string:
		switch r.IntN(8) {
		case 0:
			return v + "x"
		case 1:
			return "x" + v
		case 2:
			return ""
		case 3:
			return strings.ToUpper(v)
		}
		return pick(r, words)
	case bool:
		return !v
	case float64:
		return pick(r, []float64{v + 1, v - 1, 0, 1, -1, v * 2, 1 << 20})
	case nil:
		return pick(r, []any{map[string]any{}, []any{}, ""})
	case []any:
		return changedList(r, v, words)
	case map[string]any:
		return changedObject(r, v, words)
	}
	return s.old
}

func changedList(r *rand.Rand, v []any, words []string) any {
	if len(v) == 0 {
		return []any{pick(r, []any{pick(r, words), map[string]any{}, []any{pick(r, words)}, 1.0})}
	}
	i, k := r.IntN(len(v)), r.IntN(len(v))
	switch r.IntN(5) {
	case 0:
		return slices.Delete(slices.Clone(v), i, i+1)
	case 1:
		return slices.Insert(slices.Clone(v), k, v[i])
	case 2:
		out := slices.Clone(v)
		out[i], out[k] = out[k], out[i]
		return out
	case 3:
		return []any{}
	}
	if _, ok := v[0].(string); ok {
		return append(slices.Clone(v), pick(r, words))
	}
	return append(slices.Clone(v), v[i])
}

func changedObject(r *rand.Rand, v map[string]any, words []string) any {
	out := maps.Clone(v)
	keys := slices.Sorted(maps.Keys(v))
	switch {
	case len(keys) == 0 || r.IntN(3) == 0:
		var value any = pick(r, words)
		if len(keys) > 0 {
			value = v[pick(r, keys)]
		}
		out[pick(r, words)] = value
	default:
		delete(out, pick(r, keys))
	}
	return out
}

// stringsOf are all strings of a policy, and its keys with their values, sorted.
func stringsOf(p *policydata.Policy) []string {
	tree, err := treeOf(p)
	if err != nil {
		panic(err) // it was read from JSON
	}
	out := map[string]bool{}
	for _, s := range spotsOf(tree) {
		if text, ok := s.old.(string); ok {
			out[text] = true
		}
		if e := s.entry(); e != "" {
			out[e] = true
		}
	}
	return slices.Sorted(maps.Keys(out))
}

// entry is "key=value" of a string in an object, "" for none. Of a pattern it has an example.
func (s spot) entry() string {
	key, inObject := s.place[len(s.place)-1].(string)
	text, ok := s.old.(string)
	if !inObject || !ok {
		return ""
	}
	if strings.HasPrefix(text, "^") {
		text = rulestest.Example(text)
	}
	return key + "=" + text
}

// news are the strings, and keys with their values, that one of two policies has and the other has not, with examples of patterns.
func news(a, b *policydata.Policy) []string {
	x, y := stringsOf(a), stringsOf(b)
	var out []string
	for _, pair := range [][2][]string{{x, y}, {y, x}} {
		for _, text := range pair[0] {
			if _, both := slices.BinarySearch(pair[1], text); both {
				continue
			}
			out = append(out, text)
			if strings.HasPrefix(text, "^") {
				out = append(out, rulestest.Example(text))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// usualWords mean something in one place or another.
func usualWords() []string {
	return []string{"lo", "eth0", "127.0.0.1", "::1", "10.0.0.7", "rw", "ro", "bind", "CAP_SYS_ADMIN", "/bin/sh", "X=y", "PATH=/x", "1", ""}
}
