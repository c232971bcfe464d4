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
	path string // without indices, and without the names that are data
	old  any
	set  func(any)
}

// spotsOf are all values of a tree but its root.
func spotsOf(tree map[string]any) []spot {
	var out []spot
	object(&out, "", tree)
	return out
}

// named are objects whose keys are data.
var named = regexp.MustCompile(`(^|\.)(containers|mounts|capabilities|paths|files|patterns|optional|hashes|arg_matches|fixed|other)$`)

func object(out *[]spot, path string, m map[string]any) {
	for _, key := range slices.Sorted(maps.Keys(m)) {
		at := path + "." + key
		if path == "" {
			at = key
		}
		if named.MatchString(path) {
			at = path + ".*"
		}
		visit(out, spot{at, m[key], func(v any) { m[key] = v }})
	}
}

func visit(out *[]spot, s spot) {
	*out = append(*out, s)
	switch v := s.old.(type) {
	case map[string]any:
		object(out, s.path, v)
	case []any:
		for i := range v {
			visit(out, spot{s.path + "[]", v[i], func(item any) { v[i] = item }})
		}
	}
}

// pickSpot draws a path first, so that long lists are not all that is changed.
func pickSpot(r *rand.Rand, all []spot) *spot {
	by := map[string][]spot{}
	for _, s := range all {
		by[s.path] = append(by[s.path], s)
	}
	if len(by) == 0 {
		return nil
	}
	s := pick(r, by[pick(r, slices.Sorted(maps.Keys(by)))])
	return &s
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

// words are the strings that one of two policies has and the other has not, with examples of patterns, and some that mean something.
func words(a, b *policydata.Policy) []string {
	in := func(p *policydata.Policy) map[string]bool {
		out := map[string]bool{}
		raw, err := treeOf(p)
		if err != nil {
			return out
		}
		for _, s := range spotsOf(raw) {
			if text, ok := s.old.(string); ok {
				out[text] = true
			}
		}
		return out
	}
	x, y := in(a), in(b)
	var out []string
	for _, pair := range [][2]map[string]bool{{x, y}, {y, x}} {
		for text := range pair[0] {
			if pair[1][text] {
				continue
			}
			out = append(out, text)
			if strings.HasPrefix(text, "^") {
				out = append(out, rulestest.Example(text))
			}
		}
	}
	slices.Sort(out)
	for _, w := range slices.Clone(out) { // more often than those of every pair
		out = append(out, w, w)
	}
	return append(out, "lo", "eth0", "127.0.0.1", "::1", "10.0.0.7", "rw", "ro", "bind", "CAP_SYS_ADMIN", "/bin/sh", "X=y", "PATH=/x", "1", "")
}
