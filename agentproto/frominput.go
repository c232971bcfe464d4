// SPDX-License-Identifier: Apache-2.0

package agentproto

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"portcullis/internal/strictjson"
)

// FromInput is the reverse of [Input]: it reads a request of type mt from JSON in the shape of its input. Fields may be left out
// or null. A key that mt does not have is an error that names its path, as is a value of another type, or a number out of range.
// Names that fields had in earlier versions of the API are taken for what they are called now.
//
// A CopyFileRequest may come in the judged shape: file_type then sets the S_IFMT bits of a file_mode that has none,
// symlink_target becomes the data. It may also come as the message is, with data.
//
// Bytes, which an input has as an array of numbers, may be written as a string,
// which stands for its UTF-8 text, or as {"base64": "..."} with padding.
//
// A request may also carry its own name as "type", as lists of mixed requests have
// it: "CreateContainer" or "CreateContainerRequest".
//
// It is meant for the tools. A key twice is an error, as is text behind the value.
func FromInput(mt protoreflect.MessageType, input []byte) (proto.Message, error) {
	m, err := fromInput(mt, input)
	if err != nil {
		return nil, fmt.Errorf("read %s from input: %w", mt.Descriptor().Name(), err)
	}
	return m, nil
}

func fromInput(mt protoreflect.MessageType, input []byte) (proto.Message, error) {
	p, err := planOf(mt.Descriptor())
	if err != nil {
		return nil, err
	}
	var tree any
	if err := strictjson.Tree(input, &tree); err != nil {
		return nil, err
	}
	object, ok := tree.(map[string]any)
	if !ok {
		return nil, mismatch("object", tree)
	}
	dropTag(object, mt.Descriptor().Name())
	if mt == copyFileType {
		if object, err = copyFileMessage(object); err != nil {
			return nil, err
		}
	}
	m := mt.New()
	if err := p.fill(m, object); err != nil {
		return nil, err
	}
	return m.Interface(), nil
}

// dropTag removes the key "type" if it names the message. No message has a key of that name: the field "type" is "type_".
func dropTag(object map[string]any, message protoreflect.Name) {
	tag, ok := object["type"].(string)
	if ok && (tag == string(message) || tag+"Request" == string(message)) {
		delete(object, "type")
	}
}

// pathError puts the path of a value in front of an error, from the inside out.
type pathError struct {
	path string
	err  error
}

func (e *pathError) Error() string { return e.path + ": " + e.err.Error() }
func (e *pathError) Unwrap() error { return e.err }

// at adds a step, "key" or "[3]", to the path of err; nil stays nil.
func at(step string, err error) error {
	if err == nil {
		return nil
	}
	var inner *pathError
	if !errors.As(err, &inner) {
		return &pathError{path: step, err: err}
	}
	if !strings.HasPrefix(inner.path, "[") {
		step += "."
	}
	return &pathError{path: step + inner.path, err: inner.err}
}

// keyStep is a key as a step of a path, quoted unless it is plain text.
func keyStep(key string) string {
	quoted := strconv.Quote(key)
	if key != "" && quoted[1:len(quoted)-1] == key {
		return key
	}
	return quoted
}

func mismatch(want string, got any) error {
	kind := "object"
	switch got.(type) {
	case nil:
		kind = "null"
	case bool:
		kind = "boolean"
	case string:
		kind = "string"
	case json.Number:
		kind = "number"
	case []any:
		kind = "array"
	}
	return fmt.Errorf("want %s, got %s", want, kind)
}

// formerName gives the present name of a key that older agents wrote. Its field has the same number and meaning.
func formerName(message, key string) string {
	switch {
	case message == "types.Interface" && key == "pciPath":
		return "devicePath"
	case message == "grpc.StringUser" && key == "additional_gids":
		return "additionalGids"
	default:
		return key
	}
}

// fill sets the fields of m that object has.
func (p *plan) fill(m protoreflect.Message, object map[string]any) error {
	for _, key := range slices.Sorted(maps.Keys(object)) {
		name := formerName(p.name, key)
		if _, both := object[name]; both && name != key {
			return at(keyStep(key), fmt.Errorf("also given as %s", name))
		}
		f, ok := p.byKey[name]
		if !ok {
			return at(keyStep(key), errors.New("unknown key"))
		}
		if object[key] == nil {
			continue
		}
		if err := p.set(m, f, object[key]); err != nil {
			return at(key, err)
		}
	}
	return nil
}

// set sets one field of m from a JSON value that is not null.
func (p *plan) set(m protoreflect.Message, f *field, value any) error {
	switch {
	case f.variant != nil:
		return p.setOneof(m, f.key, value)
	case f.desc.IsMap():
		return f.setMap(m.Mutable(f.desc).Map(), value)
	case f.desc.IsList():
		return f.setList(m.Mutable(f.desc).List(), value)
	}
	element, err := f.parse(m.NewField(f.desc), value)
	if err != nil {
		return err
	}
	m.Set(f.desc, element)
	return nil
}

func (p *plan) setOneof(m protoreflect.Message, key string, value any) error {
	object, ok := value.(map[string]any)
	if !ok {
		return mismatch("object", value)
	}
	if len(object) != 1 {
		return fmt.Errorf("want one key, got %d", len(object))
	}
	for name, value := range object {
		for _, f := range p.fields {
			if f.variant == nil || f.key != key || f.variantName != name {
				continue
			}
			element, err := f.parse(m.NewField(f.desc), value)
			if err != nil {
				return at(name, err)
			}
			m.Set(f.desc, element)
			return nil
		}
		return at(keyStep(name), errors.New("unknown key"))
	}
	return nil
}

func (f *field) setList(list protoreflect.List, value any) error {
	elements, ok := value.([]any)
	if !ok {
		return mismatch("array", value)
	}
	for i, value := range elements {
		element, err := f.parse(list.NewElement(), value)
		if err != nil {
			return at("["+strconv.Itoa(i)+"]", err)
		}
		list.Append(element)
	}
	return nil
}

func (f *field) setMap(entries protoreflect.Map, value any) error {
	object, ok := value.(map[string]any)
	if !ok {
		return mismatch("object", value)
	}
	for key, value := range object {
		element, err := f.value.parse(entries.NewValue(), value)
		if err != nil {
			return at(keyStep(key), err)
		}
		entries.Set(protoreflect.ValueOfString(key).MapKey(), element)
	}
	return nil
}

// parse reads one element of f. empty is a new element, for messages to fill.
func (f *field) parse(empty protoreflect.Value, value any) (protoreflect.Value, error) {
	if f.message != nil {
		object, ok := value.(map[string]any)
		if !ok {
			return empty, mismatch("object", value)
		}
		return empty, f.message.fill(empty.Message(), object)
	}
	switch f.desc.Kind() {
	case protoreflect.StringKind:
		if text, ok := value.(string); ok {
			return protoreflect.ValueOfString(text), nil
		}
		return empty, mismatch("string", value)
	case protoreflect.BoolKind:
		if b, ok := value.(bool); ok {
			return protoreflect.ValueOfBool(b), nil
		}
		return empty, mismatch("boolean", value)
	case protoreflect.BytesKind:
		data, err := parseBytes(value)
		return protoreflect.ValueOfBytes(data), err
	default:
		return f.parseNumber(value)
	}
}

func (f *field) parseNumber(value any) (protoreflect.Value, error) {
	number, ok := value.(json.Number)
	if !ok {
		return protoreflect.Value{}, mismatch("number", value)
	}
	var v protoreflect.Value
	var i int64
	var u uint64
	var err error
	switch f.desc.Kind() {
	case protoreflect.EnumKind:
		i, err = strconv.ParseInt(number.String(), 10, 32)
		v = protoreflect.ValueOfEnum(protoreflect.EnumNumber(i))
	case protoreflect.Int32Kind:
		i, err = strconv.ParseInt(number.String(), 10, 32)
		v = protoreflect.ValueOfInt32(int32(i))
	case protoreflect.Int64Kind:
		i, err = strconv.ParseInt(number.String(), 10, 64)
		v = protoreflect.ValueOfInt64(i)
	case protoreflect.Uint32Kind:
		u, err = strconv.ParseUint(number.String(), 10, 32)
		v = protoreflect.ValueOfUint32(uint32(u))
	default: // uint64; a plan has no other kind
		u, err = strconv.ParseUint(number.String(), 10, 64)
		v = protoreflect.ValueOfUint64(u)
	}
	if err != nil {
		return v, fmt.Errorf("%s is no %s", number, f.desc.Kind())
	}
	return v, nil
}

// parseBytes takes an array of numbers, a text, or {"base64": "..."}.
func parseBytes(value any) ([]byte, error) {
	switch v := value.(type) {
	case []any:
		return parseByteNumbers(v)
	case string:
		return []byte(v), nil
	case map[string]any:
		if text, ok := v["base64"].(string); ok && len(v) == 1 {
			data, err := base64.StdEncoding.DecodeString(text)
			return data, at("base64", err)
		}
	}
	return nil, mismatch(`array of numbers, text or {"base64": text}`, value)
}

func parseByteNumbers(elements []any) ([]byte, error) {
	data := make([]byte, len(elements))
	for i, element := range elements {
		number, ok := element.(json.Number)
		if !ok {
			return nil, at("["+strconv.Itoa(i)+"]", mismatch("number", element))
		}
		b, err := strconv.ParseUint(number.String(), 10, 8)
		if err != nil {
			return nil, at("["+strconv.Itoa(i)+"]", fmt.Errorf("%s is no byte", number))
		}
		data[i] = byte(b)
	}
	return data, nil
}
