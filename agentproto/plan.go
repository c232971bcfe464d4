// SPDX-License-Identifier: Apache-2.0

package agentproto

import (
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// plan is a message descriptor in the form that walking a message needs.
type plan struct {
	name        string            // as the wire has it
	fields      []*field          // in the order of the descriptor
	byNumber    []*field          // indexed by field number; nil is unknown
	byKey       map[string]*field // by the key of the input; for a oneof, its last member
	nested      []*field          // those that hold messages
	holdsBytes  bool              // bytes here or below
	holdsOneof  bool              // a oneof here or below
	containerID protoreflect.FieldDescriptor
	weight      int64 // bytes that a message without values takes, decoded and as input
}

// field is one field of a plan. The entries of a map are described by two fields of their own, key and value.
type field struct {
	desc        protoreflect.FieldDescriptor
	key         string         // in the input; of the oneof for a member of one
	keyTerm     *ast.Term      // key as a term
	variant     *ast.Term      // for a member of a oneof: its own name in the input
	variantName string         // variant as text
	wire        protowire.Type // of one element
	packed      bool           // a list that may also come packed
	scalar      scalar         // for what is neither message nor map
	message     *plan          // for a message or a list of them
	entry       *plan          // for a map: fields 1 and 2 of its entries
	value       *field         // for a map: field 2 of its entries
}

// scalar makes the input of a scalar value.
type scalar func(protoreflect.Value) ast.Value

// plan returns the plan of desc, made at the first call.
func (a *api) plan(desc protoreflect.MessageDescriptor) *plan {
	if p, ok := a.plans[desc]; ok {
		return p
	}
	p := &plan{name: WireName(desc), byKey: make(map[string]*field), weight: messageWeight(desc)}
	a.plans[desc] = p
	fields := desc.Fields()
	for i := range fields.Len() {
		p.add(a.field(fields.Get(i)))
	}
	if id := desc.Fields().ByName("container_id"); id != nil && id.Kind() == protoreflect.StringKind {
		p.containerID = id
	}
	return p
}

func (p *plan) add(f *field) {
	number := int(f.desc.Number())
	for len(p.byNumber) <= number {
		p.byNumber = append(p.byNumber, nil)
	}
	p.byNumber[number] = f
	p.fields = append(p.fields, f)
	p.byKey[f.key] = f
	p.holdsOneof = p.holdsOneof || f.variant != nil || f.message != nil && f.message.holdsOneof
	switch {
	case f.message != nil:
		p.nested = append(p.nested, f)
		p.holdsBytes = p.holdsBytes || f.message.holdsBytes
	case f.value != nil && f.value.message != nil:
		p.nested = append(p.nested, f)
		p.holdsBytes = p.holdsBytes || f.value.message.holdsBytes
	case f.desc.Kind() == protoreflect.BytesKind:
		p.holdsBytes = true
	}
}

func (a *api) field(desc protoreflect.FieldDescriptor) *field {
	f := &field{desc: desc, key: inputKey(desc.Name())}
	if oneof := desc.ContainingOneof(); oneof != nil && !oneof.IsSynthetic() {
		f.key = string(oneof.Name())
		f.variantName = camelCase(string(desc.Name()))
		f.variant = ast.StringTerm(f.variantName)
	}
	f.keyTerm = ast.StringTerm(f.key)
	switch {
	case desc.IsMap():
		f.wire = protowire.BytesType
		f.entry = a.plan(desc.Message())
		f.value = f.entry.byNumber[2]
	case desc.Kind() == protoreflect.MessageKind:
		f.wire = protowire.BytesType
		f.message = a.plan(desc.Message())
	default:
		f.wire, f.scalar = scalarOf(desc)
		f.packed = desc.IsList() && f.wire == protowire.VarintType
	}
	return f
}

// scalarOf covers the kinds that the API uses. All its numbers are varints.
func scalarOf(desc protoreflect.FieldDescriptor) (protowire.Type, scalar) {
	switch desc.Kind() {
	case protoreflect.StringKind:
		return protowire.BytesType, func(v protoreflect.Value) ast.Value { return stringValue(v.String()) }
	case protoreflect.BytesKind:
		return protowire.BytesType, func(v protoreflect.Value) ast.Value { return bytesValue(v.Bytes()) }
	case protoreflect.BoolKind:
		return protowire.VarintType, func(v protoreflect.Value) ast.Value { return ast.InternedValue(v.Bool()) }
	case protoreflect.EnumKind:
		return protowire.VarintType, func(v protoreflect.Value) ast.Value { return intValue(int64(v.Enum())) }
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		return protowire.VarintType, func(v protoreflect.Value) ast.Value { return intValue(v.Int()) }
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		return protowire.VarintType, func(v protoreflect.Value) ast.Value { return uintValue(v.Uint()) }
	default:
		panic(fmt.Sprintf("agentproto: field %s has kind %s", desc.FullName(), desc.Kind()))
	}
}

// inputKey is the key of a field in the input. The agent's serializer escapes
// the one field name of the API that is a keyword of its language.
func inputKey(name protoreflect.Name) string {
	if name == "type" {
		return "type_"
	}
	return string(name)
}

// camelCase turns "field_name" into "FieldName".
func camelCase(name string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(name, "_") {
		if part != "" {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return b.String()
}
