// SPDX-License-Identifier: Apache-2.0

package prove

import (
	"bytes"
	"encoding/json"
	"slices"

	"portcullis/internal/rulestest"
)

// object is the object at a path of a request; a request that the emulation made has it.
func object(input map[string]any, path ...string) map[string]any {
	for _, key := range path {
		next, ok := input[key].(map[string]any)
		if !ok {
			return map[string]any{}
		}
		input = next
	}
	return input
}

func list(input map[string]any, key string) []any {
	items, _ := input[key].([]any)
	return items
}

func add(input map[string]any, key string, items ...any) {
	input[key] = slices.Concat(list(input, key), items)
}

// drop leaves out the items of a list that a condition holds for.
func drop(input map[string]any, key string, condition func(any) bool) {
	kept := []any{}
	for _, item := range list(input, key) {
		if !condition(item) {
			kept = append(kept, item)
		}
	}
	input[key] = kept
}

// items are strings as the items of a list in JSON.
func items[T any](values []T) []any {
	out := make([]any, len(values))
	for i, value := range values {
		out[i] = value
	}
	return out
}

func annotations(input map[string]any) map[string]any { return object(input, "OCI", "Annotations") }

func process(input map[string]any) map[string]any { return object(input, "OCI", "Process") }

func linux(input map[string]any) map[string]any { return object(input, "OCI", "Linux") }

// rename is a request with one id in place of another, wherever it stands.
func rename(r rulestest.Request, from, to string) rulestest.Request {
	raw, err := json.Marshal(r.Input)
	if err != nil {
		panic(err) // emulated requests are JSON
	}
	var input map[string]any
	if err := json.Unmarshal(bytes.ReplaceAll(raw, []byte(from), []byte(to)), &input); err != nil {
		panic(err) // ids have no character that is special in JSON
	}
	return rulestest.Request{Kind: r.Kind, Input: input}
}

// requests is an attempt with these after the sandbox.
func requests(all ...rulestest.Request) attempt {
	return attempt{then: func(string) []rulestest.Request { return all }}
}
