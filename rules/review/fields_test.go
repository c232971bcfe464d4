// SPDX-License-Identifier: Apache-2.0

package review

import (
	"fmt"
	"reflect"
	"testing"

	"portcullis/rules/policydata"
)

// filled has one of everything, and every text in it is k, so that names of sets are those of sets that are there.
func filled() *policydata.Policy {
	p := new(policydata.Policy)
	fill(reflect.ValueOf(p).Elem())
	c := p.Containers["k"]
	c.ArgMatches = map[string]policydata.Match{"1": {Pattern: "k"}}
	c.Args = []string{"k", "k"}
	return p
}

func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("k")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		item := reflect.New(v.Type().Elem()).Elem()
		fill(item)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("k").Convert(v.Type().Key()), item)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	default:
		panic(v.Kind())
	}
}

// leaves calls change for every value below v, by its path, with v changed in it, and puts it back.
func leaves(v reflect.Value, path string, changed func(path string)) {
	with := func(what string, other reflect.Value) {
		before := reflect.New(v.Type()).Elem()
		before.Set(v)
		v.Set(other.Convert(v.Type()))
		changed(path + what)
		v.Set(before)
	}
	switch v.Kind() {
	case reflect.String:
		with("", reflect.ValueOf("other"))
	case reflect.Bool:
		with("", reflect.ValueOf(false))
	case reflect.Int, reflect.Int64, reflect.Uint32, reflect.Uint64:
		with("", reflect.ValueOf(2))
	case reflect.Pointer:
		if v.Type() == reflect.TypeFor[*policydata.FSGroup]() { // a container that is null is no policy_data
			with(" nil", reflect.Zero(v.Type()))
		}
		leaves(v.Elem(), path, changed)
	case reflect.Slice:
		with(" empty", reflect.Zero(v.Type()))
		leaves(v.Index(0), path+"[]", changed)
	case reflect.Map:
		with(" empty", reflect.Zero(v.Type()))
		for _, key := range v.MapKeys() {
			item := reflect.New(v.Type().Elem()).Elem()
			item.Set(v.MapIndex(key))
			leaves(item, path+"[]", func(path string) {
				before := v.MapIndex(key)
				v.SetMapIndex(key, item)
				changed(path)
				v.SetMapIndex(key, before)
			})
		}
	case reflect.Struct:
		for i := range v.NumField() {
			leaves(v.Field(i), path+"."+v.Type().Field(i).Name, changed)
		}
	default:
		panic(v.Kind())
	}
}

// A policy that differs in any one value is not called equal, nor is the difference told without words.
func TestEveryValueOfAPolicyIsCompared(t *testing.T) {
	known := map[string]bool{
		".Version":                            true, // of which there is one
		".Containers[].ArgMatches[].Template": true, // beside a pattern, which no policy has
	}
	subject := func(text string, p *policydata.Policy) *Subject { return &Subject{Text: []byte(text), Data: p} }
	base, tried := filled(), 0
	p := filled()
	leaves(reflect.ValueOf(p).Elem(), "", func(path string) {
		tried++
		for _, secrets := range []bool{false, true} {
			d := Compare(subject("a", base), subject("b", p), secrets)
			if len(d.OnlyA)+len(d.OnlyB) == 0 && !known[path] {
				t.Errorf("%s: no difference is found (secrets %v)", path, secrets)
			}
		}
	})
	if tried < 150 {
		t.Errorf("%d values tried", tried)
	}
	if d := Compare(subject("a", base), subject("b", p), false); len(d.OnlyA)+len(d.OnlyB) > 0 {
		t.Error(fmt.Sprint("not put back: ", d))
	}
}
