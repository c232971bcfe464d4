// SPDX-License-Identifier: Apache-2.0

package prove

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"portcullis/internal/strictjson"
	"portcullis/rules/policydata"
)

// ErrWritten says that policy_data is not written as this project writes it, so that the rules may read it otherwise than it was
// read here.
var ErrWritten = errors.New("policy_data is not written in full")

// written holds a text of policy_data to what was read from it. The rules read the text: a key that is missing, or null, is
// undefined to them and no empty list, false or zero, as it is in the typed form.
func written(text []byte, read *policydata.Policy) error {
	again, err := read.JSON()
	if err != nil {
		return err
	}
	var got, want any
	if err := errors.Join(strictjson.Unmarshal(text, &got), strictjson.Unmarshal(again, &want)); err != nil {
		return err
	}
	if at, ok := differs(got, want, "policy_data"); ok {
		return fmt.Errorf("%w: %s is missing, null or empty", ErrWritten, at)
	}
	return nil
}

// differs says where two trees do. An empty list, an empty object or false may stand for nothing.
func differs(got, want any, at string) (string, bool) {
	a, isObject := got.(map[string]any)
	b, wantsObject := want.(map[string]any)
	if !isObject || !wantsObject {
		return differsInItems(got, want, at)
	}
	for _, key := range slices.Sorted(maps.Keys(a)) {
		value, there := b[key]
		if !there && !nothingSaid(a[key]) {
			return at + "." + key, true
		}
		if there {
			if where, ok := differs(a[key], value, at+"."+key); ok {
				return where, true
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(b)) {
		if _, there := a[key]; !there {
			return at + "." + key, true
		}
	}
	return "", false
}

// differsInItems is differs for what is not an object in both.
func differsInItems(got, want any, at string) (string, bool) {
	a, isList := got.([]any)
	b, wantsList := want.([]any)
	if !isList || !wantsList || len(a) != len(b) {
		return at, !reflect.DeepEqual(got, want)
	}
	for i := range a {
		if where, ok := differs(a[i], b[i], fmt.Sprintf("%s[%d]", at, i)); ok {
			return where, true
		}
	}
	return "", false
}

func nothingSaid(v any) bool {
	switch v := v.(type) {
	case bool:
		return !v
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}
