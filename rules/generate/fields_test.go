// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// leaves are types that have no fields to classify.
var leaves = map[string]bool{"resource.Quantity": true, "intstr.IntOrString": true}

func TestEveryFieldOfAPodIsClassified(t *testing.T) {
	reached := map[reflect.Type]bool{}
	var walk func(reflect.Type, string)
	walk = func(typ reflect.Type, path string) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || reached[typ] || leaves[typ.String()] {
			return
		}
		reached[typ] = true
		classes, ok := table[typ]
		if !ok {
			t.Errorf("%s: type %s is not in the table", path, typ)
			return
		}
		names := map[string]bool{}
		eachField(typ, func(name string, index []int) {
			names[name] = true
			count := 0
			if contains(classes.used, name) {
				count++
				walk(typ.FieldByIndex(index).Type, join(path, name))
			}
			if contains(classes.harmless, name) {
				count++
			}
			if _, ok := classes.refused[name]; ok {
				count++
			}
			if count != 1 {
				t.Errorf("%s of %s has %d classes, want 1", join(path, name), typ, count)
			}
		})
		for name := range strings.FieldsSeq(classes.used + " " + classes.harmless) {
			if !names[name] {
				t.Errorf("%s has no field %q", typ, name)
			}
		}
		for name, why := range classes.refused {
			if !names[name] || why == "" {
				t.Errorf("%s has no field %q, or no reason", typ, name)
			}
		}
	}
	walk(reflect.TypeFor[corev1.PodSpec](), "spec")
	for typ := range table {
		if !reached[typ] {
			t.Errorf("table has %s, which no used field reaches", typ)
		}
	}
	if len(reached) < 40 {
		t.Fatalf("reached %d types only", len(reached))
	}
}
