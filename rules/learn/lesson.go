// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"portcullis/engine"
)

// Rank says how much a lesson loosens.
type Rank int

// Values of Rank, the tightest first.
const (
	Tighter Rank = iota // the runtime is stricter, or names what the guest ignores
	Exact               // one more value of what only the host chooses
	Looser              // an option or a user that the policy would not have by itself
)

// Lesson is one setting that was learned from a request.
type Lesson struct {
	Key   []string // of the settings: "common", "oci_versions"
	Value any      // JSON value: that of the key, or one more of its list
	More  bool     // Value is one more of a list
	Rank  Rank
	Asked string // the request and field that ask for it
}

// same says whether two lessons set the same thing to the same value.
func (l Lesson) same(other Lesson) bool {
	return slices.Equal(l.Key, other.Key) && text(l.Value) == text(other.Value)
}

// contradicts says whether both cannot hold: a key has one value.
func (l Lesson) contradicts(other Lesson) bool {
	return !l.More && slices.Equal(l.Key, other.Key) && text(l.Value) != text(other.Value)
}

// Render writes lessons as a drop-in, the loosest last. list gives what a list of the settings below holds, as JSON values.
func Render(lessons []Lesson, list func(key []string) ([]any, error)) ([]byte, error) {
	sorted := slices.Clone(lessons)
	slices.SortStableFunc(sorted, func(a, b Lesson) int { return int(a.Rank - b.Rank) })
	var out bytes.Buffer
	done := map[string]bool{}
	for _, l := range sorted {
		key := keyText(l.Key)
		if done[key] {
			continue
		}
		done[key] = true
		if !l.More {
			fmt.Fprintf(&out, "# %s\n%s = %s\n", l.Asked, key, text(l.Value))
			continue
		}
		values, err := list(l.Key)
		if err != nil {
			return nil, err
		}
		for _, other := range sorted {
			if slices.Equal(other.Key, l.Key) {
				fmt.Fprintf(&out, "# %s\n", other.Asked)
				values = append(values, other.Value)
			}
		}
		fmt.Fprintf(&out, "%s = %s\n", key, text(values))
	}
	return out.Bytes(), nil
}

// bareKey is a key that TOML takes without quotes.
var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func keyText(key []string) string {
	parts := make([]string, len(key))
	for i, part := range key {
		if parts[i] = part; !bareKey.MatchString(part) {
			parts[i] = text(part)
		}
	}
	return strings.Join(parts, ".")
}

// text writes a value as TOML: inline tables with sorted keys, strings as in JSON, whose escapes TOML has too.
func text(value any) string {
	switch v := value.(type) {
	case []any:
		parts := make([]string, len(v))
		for i, item := range v {
			parts[i] = text(item)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case map[string]any:
		var parts []string
		for key, item := range v {
			parts = append(parts, keyText([]string{key})+" = "+text(item))
		}
		slices.Sort(parts)
		return "{ " + strings.Join(parts, ", ") + " }"
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		return `""` // strings, numbers and booleans are always written
	}
	return strings.TrimSpace(out.String())
}

// asked names a place in a request for a comment: on one line, whatever the host put into it.
func asked(kind string, line int, path string) string {
	return engine.OneLine(fmt.Sprintf("line %d, %s: %s", line, kind, path), 300)
}
