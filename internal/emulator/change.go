// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"portcullis/internal/strictjson"
)

// ErrChange is returned for a change that fits no request.
var ErrChange = errors.New("no such change")

// Input is a request as a policy sees it.
type Input struct {
	Container string // name of the container it is about, "" for the sandbox
	Kind      string // entry point
	Request   map[string]any
}

// Change is a change of one field of one request: of the first that has the field, containers before the sandbox.
type Change struct {
	Container string // "" means any, "$sandbox" the pause container
	Kind      string // "" means any
	Path      string // such as OCI.Process.Args[0] or OCI.Mounts[/etc/shop].source
	Value     any    // nil with Remove
	Remove    bool   // the item of a list or the key of a map is left out
}

// ParseChange reads [CONTAINER/][KIND:]PATH=VALUE. A value that is JSON is taken as
// such, any other as text. KIND may be without "Request" at its end.
func ParseChange(text string) (Change, error) {
	c, err := parsePlace(text)
	if err != nil {
		return c, err
	}
	end := valueAt(c.Path)
	if end < 0 {
		return c, fmt.Errorf("%w: %q is not PATH=VALUE", ErrChange, text)
	}
	value := c.Path[end+1:]
	c.Path = c.Path[:end]
	switch err := strictjson.Unmarshal([]byte(value), &c.Value); {
	case errors.Is(err, strictjson.ErrTwice):
		return c, fmt.Errorf("%w: %w", ErrChange, err)
	case err != nil:
		c.Value = value
	}
	return c, nil
}

// ParseRemoval reads [CONTAINER/][KIND:]PATH.
func ParseRemoval(text string) (Change, error) {
	c, err := parsePlace(text)
	c.Remove = true
	return c, err
}

// parsePlace reads what is before the path.
func parsePlace(text string) (Change, error) {
	c := Change{Path: text}
	head := text
	if i := strings.IndexAny(text, ".[="); i >= 0 {
		head = text[:i]
	}
	if before, _, ok := strings.Cut(head, "/"); ok {
		c.Container = before
		c.Path = c.Path[len(before)+1:]
		head = head[len(before)+1:]
	}
	if before, _, ok := strings.Cut(head, ":"); ok {
		c.Kind = strings.TrimSuffix(before, "Request") + "Request"
		c.Path = c.Path[len(before)+1:]
	}
	if c.Path == "" {
		return c, fmt.Errorf("%w: %q has no path", ErrChange, text)
	}
	return c, nil
}

// valueAt is the place of the "=" behind a path, which may itself hold some in brackets.
func valueAt(text string) int {
	depth := 0
	for i, r := range text {
		switch {
		case r == '[':
			depth++
		case r == ']':
			depth--
		case r == '=' && depth == 0:
			return i
		}
	}
	return -1
}

// Apply makes a change in the requests of a pod.
func (c Change) Apply(requests []Input) error {
	steps := splitPath(c.Path)
	for _, sandbox := range []bool{false, true} {
		for _, r := range requests {
			name := r.Container
			if name == "" {
				name = "$sandbox"
			}
			fits := (r.Container == "") == sandbox && (c.Container == "" || c.Container == name) && (c.Kind == "" || c.Kind == r.Kind)
			if fits && c.at(r.Request, steps) {
				repeatMetadata(r.Request)
				return nil
			}
		}
	}
	return fmt.Errorf("%w: no request has %s", ErrChange, c.Path)
}

// splitPath splits "OCI.Mounts[/etc/x].source" into its steps.
func splitPath(path string) []string {
	var out []string
	for path != "" {
		switch i := strings.IndexAny(path, ".["); {
		case path[0] == '[':
			key, rest, _ := strings.Cut(path[1:], "]")
			out, path = append(out, key), strings.TrimPrefix(rest, ".")
		case i < 0:
			return append(out, path)
		case path[i] == '.':
			out, path = append(out, path[:i]), path[i+1:]
		default:
			out, path = append(out, path[:i]), path[i:]
		}
	}
	return out
}

// at makes the change below v, and is false where v has no such place.
func (c Change) at(v any, steps []string) bool {
	last := len(steps) == 1
	switch v := v.(type) {
	case map[string]any:
		next, ok := v[steps[0]]
		switch {
		case !last:
			return ok && c.below(next, steps[1:], func(value any) { v[steps[0]] = value })
		case c.Remove && ok:
			delete(v, steps[0])
			return true
		case c.Remove || !ok && !strings.Contains(steps[0], "/") && !strings.Contains(steps[0], "."): // a new key of a map, but no new field
			return false
		}
		v[steps[0]] = c.Value
		return true
	}
	return false
}

// below makes the change in a value that is a list or a map.
func (c Change) below(v any, steps []string, replace func(any)) bool {
	list, ok := v.([]any)
	if !ok {
		return c.at(v, steps)
	}
	i := item(list, steps[0])
	switch {
	case steps[0] == "+" && len(steps) == 1 && !c.Remove:
		replace(append(list, c.Value))
	case i < 0:
		return false
	case len(steps) > 1:
		return c.below(list[i], steps[1:], func(value any) { list[i] = value })
	case c.Remove:
		replace(slices.Delete(list, i, i+1))
	default:
		list[i] = c.Value
	}
	return true
}

// item finds an item of a list by its number, by the name of a variable, or by the destination, type or driver of a message.
func item(list []any, key string) int {
	if n, err := strconv.Atoi(key); err == nil && n >= 0 && n < len(list) {
		return n
	}
	return slices.IndexFunc(list, func(v any) bool {
		switch v := v.(type) {
		case string:
			name, _, _ := strings.Cut(v, "=")
			return name == key
		case map[string]any:
			return v["destination"] == key || v["Type"] == key || v["driver"] == key
		}
		return false
	})
}

// repeatMetadata puts changed annotations into the image pull, which repeats them.
func repeatMetadata(input map[string]any) {
	oci, _ := input["OCI"].(map[string]any)
	storages, _ := input["storages"].([]any)
	for _, s := range storages {
		pull, _ := s.(map[string]any)
		options, _ := pull["driver_options"].([]any)
		if pull["driver"] != "image_guest_pull" || len(options) != 1 || !strings.Contains(fmt.Sprint(options[0]), "metadata") {
			continue
		}
		raw, err := json.Marshal(map[string]any{"metadata": oci["Annotations"]})
		if err == nil {
			pull["driver_options"] = []any{"image_guest_pull=" + string(raw)}
		}
	}
}
