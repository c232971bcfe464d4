// SPDX-License-Identifier: Apache-2.0

package settings

import (
	_ "embed"
	"fmt"
	"reflect"
	"strings"

	"github.com/BurntSushi/toml"

	"portcullis/rules"
	"portcullis/rules/policydata"
)

//go:embed meanings.txt
var meaningsText string

// Key is one key that settings have. In its path NAME, DESTINATION, KIND and KEY stand for what the user chooses, [] for an item of
// an array of tables.
type Key struct {
	Path    string
	Type    string // in words
	Meaning string
}

// Keys lists all keys in the order of the types.
func Keys() []Key {
	var meanings map[string]string
	if _, err := toml.Decode(meaningsText, &meanings); err != nil {
		panic("settings: embedded meanings of keys: " + err.Error())
	}
	listable := strings.Join(rules.Listable(), ", ")
	var all []Key
	leaves(reflect.TypeFor[Settings](), "", func(path string, t reflect.Type) {
		all = append(all, Key{Path: path, Type: typeWords(t), Meaning: strings.ReplaceAll(meaningOf(meanings, path), "@LISTABLE@", listable)})
	})
	return all
}

// meaningOf looks for a path, then for its ends: what a mount's options are is said once.
func meaningOf(meanings map[string]string, path string) string {
	for {
		if words, ok := meanings[path]; ok {
			return words
		}
		_, rest, ok := strings.Cut(path, ".")
		if !ok {
			return ""
		}
		path = rest
	}
}

// leaves calls found with each key that holds a value, below a type of settings.
func leaves(t reflect.Type, path string, found func(string, reflect.Type)) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t.Kind() == reflect.Struct:
		for i := range t.NumField() {
			if name := keyName(t.Field(i)); name != "" {
				leaves(t.Field(i).Type, strings.TrimPrefix(path+"."+name, "."), found)
			}
		}
	case t.Kind() == reflect.Map && holdsTables(t.Elem()):
		leaves(t.Elem(), path+"."+placeholder(path), found)
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		leaves(t.Elem(), path+"[]", found)
	default:
		found(path, t)
	}
}

func holdsTables(t reflect.Type) bool {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t.Kind() == reflect.Struct
}

// keyName is the key of a field; "" for none. Fields without a tag are named as in requests.
func keyName(f reflect.StructField) string {
	tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	switch {
	case tag == "-" || !f.IsExported() || f.Type == reflect.TypeFor[*policydata.Contents]() || f.Name == "Copied":
		return "" // these are the generator's
	case tag == "":
		return f.Name
	}
	return tag
}

// placeholder stands for the keys of a table that the user names.
func placeholder(path string) string {
	switch {
	case path == "generate.volumes":
		return "KIND"
	case strings.HasPrefix(path, "generate.") && strings.HasSuffix(path, ".mounts"):
		return "DESTINATION"
	}
	return "NAME"
}

// typeWords says what a value may be.
func typeWords(t reflect.Type) string {
	if words, ok := choices[t]; ok {
		return strings.Join(words, ", ")
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Slice {
			return "list of lists of text"
		}
		return "list of " + typeWords(t.Elem())
	case reflect.Map:
		return "table of KEY = " + typeWords(t.Elem())
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint32, reflect.Uint64:
		return "number"
	}
	return fmt.Sprint(t)
}
