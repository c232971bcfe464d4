// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	sigsjson "sigs.k8s.io/json"
)

// decoder decodes parts of a document into Kubernetes types, strictly.
type decoder struct {
	doc           *document
	ignoreUnknown bool // unknown fields are warnings
	warnings      []*Finding
}

// maxQuoted bounds how many numbers are taken for strings in one object.
const maxQuoted = 1000

// decode reads text, the JSON at prefix of the document, into the struct that into points to. Unknown fields are refused; a
// number or bool where a string belongs is taken as it is written, with a warning.
func (d *decoder) decode(text []byte, prefix string, into any) error {
	for range maxQuoted {
		fresh := reflect.New(reflect.TypeOf(into).Elem())
		unknown, err := sigsjson.UnmarshalStrict(text, fresh.Interface())
		if err == nil {
			reflect.ValueOf(into).Elem().Set(fresh.Elem())
			return d.unknown(unknown, prefix, fresh.Type())
		}
		var mismatch *json.UnmarshalTypeError
		if !errors.As(err, &mismatch) {
			return d.doc.fault(join(prefix, culprit(text, fresh.Type(), err)), "does not fit: "+oneLine(err.Error()))
		}
		field, start, end := fieldBefore(text, mismatch.Offset)
		field = join(prefix, field)
		node := find(d.doc.root, field)
		if mismatch.Type.Kind() != reflect.String || node == nil || node.Kind != yaml.ScalarNode || end == 0 {
			return d.doc.fault(field, fmt.Sprintf("is of type %s, but Kubernetes wants %s here", mismatch.Value, wanted(mismatch.Type)))
		}
		d.warnings = append(d.warnings, d.doc.fault(field, "is not a string; put it in quotes, as Kubernetes refuses it"))
		quoted, err := json.Marshal(node.Value)
		if err != nil {
			return d.doc.fault(field, oneLine(err.Error()))
		}
		text = bytes.Join([][]byte{text[:start], quoted, text[end:]}, nil)
	}
	return d.doc.fault(prefix, "has too many numbers where strings belong")
}

// unknown reports the fields that Kubernetes does not have in a type, with the one that is probably meant.
func (d *decoder) unknown(faults []error, prefix string, in reflect.Type) error {
	var all []error
	for _, fault := range faults {
		field, meant := prefix, ""
		if f := sigsjson.FieldError(nil); errors.As(fault, &f) {
			field, meant = join(prefix, f.FieldPath()), nearestField(in, f.FieldPath())
		}
		found := d.doc.fault(field, "is not a field that Kubernetes knows here")
		if meant != "" {
			found.Text += "; is it " + meant + "?"
		}
		if d.ignoreUnknown {
			found.Text += "; it was ignored"
			d.warnings = append(d.warnings, found)
			continue
		}
		all = append(all, found)
	}
	return errors.Join(all...)
}

// culprit returns the path of the scalar in text without which decoding into a type, given as a pointer, does not end in fault:
// types that decode themselves, such as quantities, do not say where they are. It returns "" when there is none.
func culprit(text []byte, pointer reflect.Type, fault error) string {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	for range maxQuoted {
		token, err := dec.Token()
		if err != nil {
			break
		}
		if _, isDelim := token.(json.Delim); isDelim {
			continue
		}
		field, start, end := fieldBefore(text, dec.InputOffset())
		if end == 0 || end < start {
			continue
		}
		without := bytes.Join([][]byte{text[:start], []byte("null"), text[end:]}, nil)
		_, err = sigsjson.UnmarshalStrict(without, reflect.New(pointer.Elem()).Interface())
		if err == nil || err.Error() != fault.Error() {
			return field
		}
	}
	return ""
}

func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "an object"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	}
	return "a number"
}

// join puts two parts of a field path together.
func join(prefix, field string) string {
	if prefix == "" || field == "" || field[0] == '[' {
		return prefix + field
	}
	return prefix + "." + field
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// frame is an open object or list of a JSON text.
type frame struct {
	list  bool
	index int
	key   string
	isKey bool // the next token of an object is a key
}

// fieldBefore returns the path of the value in a JSON text that offset is in or
// directly behind, and where its text is when it is a scalar (end 0 otherwise).
func fieldBefore(text []byte, offset int64) (field string, start, end int) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var open []frame
	for {
		before := dec.InputOffset()
		token, err := dec.Token()
		if err != nil {
			return "", 0, 0
		}
		after := dec.InputOffset()
		delim, isDelim := token.(json.Delim)
		closing := isDelim && (delim == '}' || delim == ']')
		if len(open) > 0 && !closing {
			top := &open[len(open)-1]
			if top.isKey {
				top.key, _ = token.(string)
				top.isKey = false
				continue
			}
		}
		if after >= offset {
			if isDelim {
				return pathOf(open), 0, 0
			}
			return pathOf(open), scalarStart(text, int(before)), int(after)
		}
		if isDelim && !closing {
			open = append(open, frame{list: delim == '[', isKey: delim == '{'})
			continue
		}
		if closing {
			open = open[:len(open)-1]
		}
		if len(open) > 0 {
			top := &open[len(open)-1]
			top.index++
			top.isKey = !top.list
		}
	}
}

func scalarStart(text []byte, at int) int {
	for at < len(text) && strings.IndexByte(" \t\r\n:,", text[at]) >= 0 {
		at++
	}
	return at
}

func pathOf(open []frame) string {
	path := ""
	for _, f := range open {
		if f.list {
			path += "[" + strconv.Itoa(f.index) + "]"
		} else {
			path = join(path, f.key)
		}
	}
	return path
}
