// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// at walks into decoded JSON: keys of objects. It is nil where there is nothing.
func at(v any, keys ...string) any {
	for _, key := range keys {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

func object(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

// texts are the strings of a list.
func texts(v any) []string {
	var out []string
	for _, item := range list(v) {
		if s, ok := item.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// same compares decoded JSON; numbers by their text.
func same(a, b any) bool { return reflect.DeepEqual(normal(a), normal(b)) }

// normal makes numbers comparable however they were decoded, and an absent list equal to an empty one.
func normal(v any) any {
	switch v := v.(type) {
	case json.Number:
		return v.String()
	case float64, int, int64, uint32:
		return fmt.Sprint(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = normal(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for key := range v {
			out[key] = normal(v[key])
		}
		return out
	}
	return v
}

// narrow goes into two values for as long as they differ in one place that the policy states: it is where a reader wants to look.
func narrow(path string, wanted, got any) (string, any, any) {
	switch w := wanted.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			break
		}
		for _, key := range slices.Sorted(maps.Keys(w)) {
			if value, has := g[key]; has && !same(w[key], value) {
				return narrow(path+"."+key, w[key], value)
			}
		}
		for _, key := range slices.Sorted(maps.Keys(w)) {
			if _, has := g[key]; !has {
				return path + "." + key, w[key], nil
			}
		}
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			break
		}
		for i := range w {
			if !same(w[i], g[i]) {
				return narrow(fmt.Sprintf("%s[%d]", path, i), w[i], g[i])
			}
		}
	}
	return path, wanted, got
}

// without are the items of a that b does not have.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}
