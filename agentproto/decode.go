// SPDX-License-Identifier: Apache-2.0

package agentproto

import (
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// ErrUnknownField is wrapped by every [UnknownFieldError].
var ErrUnknownField = errors.New("unknown field")

// UnknownFieldError names a field that the API does not have, or one that came with another wire type than it has there.
type UnknownFieldError struct {
	Message string           // full name of the message that holds the field
	Path    string           // where that message is in the request, such as "OCI.Mounts[3]"; empty for the request
	Number  protowire.Number // of the field
}

func (e *UnknownFieldError) Error() string {
	where := e.Message
	if e.Path != "" {
		where = e.Path + " (" + e.Message + ")"
	}
	return fmt.Sprintf("%v %d in %s", ErrUnknownField, e.Number, where)
}

// Unwrap returns [ErrUnknownField].
func (e *UnknownFieldError) Unwrap() error { return ErrUnknownField }

// under moves the error one level up: the message it names is in field name.
func (e *UnknownFieldError) under(name protoreflect.Name, suffix string) *UnknownFieldError {
	path := string(name) + suffix
	if e.Path != "" {
		path += "." + e.Path
	}
	return &UnknownFieldError{Message: e.Message, Path: path, Number: e.Number}
}

// Decode reads a message of type mt from its encoding: [Scan] and [Scanned.Decode] in one.
func Decode(mt protoreflect.MessageType, wire []byte) (proto.Message, error) {
	s, err := Scan(mt, wire)
	if err != nil {
		return nil, err
	}
	return s.Decode()
}

// Scanned is the encoding of a message of which nothing has been allocated yet.
type Scanned struct {
	mt   protoreflect.MessageType
	wire []byte
	// Weight is how many bytes decoding it and building its input take at most,
	// about; the megabytes of a bytes field that no policy reads are not in it.
	Weight int64
}

// MaxWeight is the weight from which on a message is not walked any further, in bytes; ErrTooHeavy says that it was reached.
const MaxWeight = 16 << 20

// ErrTooHeavy is wrapped by the error of [Scan] for a message of MaxWeight.
var ErrTooHeavy = errors.New("message has too many parts")

// Scan walks the encoding of a message of type mt. A field that mt does not know, at any depth and also in the entries of a map,
// is an [*UnknownFieldError], found before anything is allocated. The cost follows the number of fields, not the length of wire.
func Scan(mt protoreflect.MessageType, wire []byte) (Scanned, error) {
	s := Scanned{mt: mt, wire: wire}
	name := WireName(mt.Descriptor())
	p, err := planOf(mt.Descriptor())
	if err != nil {
		return s, fmt.Errorf("decode: %w", err)
	}
	unknown, err := p.scan(wire, &s.Weight)
	if err != nil {
		return s, fmt.Errorf("decode %s: %w", name, err)
	}
	if unknown != nil {
		return s, fmt.Errorf("decode %s: %w", name, unknown)
	}
	return s, nil
}

// Decode makes the message. A large bytes field of the request itself shares the memory of the encoding, which must not change
// any more: megabytes are not copied to be judged.
func (s Scanned) Decode() (proto.Message, error) {
	m := s.mt.New()
	rest, large := cutLarge(m.Descriptor(), s.wire)
	if err := proto.Unmarshal(rest, m.Interface()); err != nil {
		return nil, fmt.Errorf("decode %s: %w", WireName(m.Descriptor()), err)
	}
	if large.field != nil {
		m.Set(large.field, protoreflect.ValueOfBytes(large.value))
	}
	return m.Interface(), nil
}

// shareFrom is the length from which a bytes field is not copied.
const shareFrom = 64 << 10

// largeField is a field that was cut out of an encoding.
type largeField struct {
	field protoreflect.FieldDescriptor // nil for none
	value []byte                       // in the memory of the encoding
}

// cutLarge takes the one large bytes field out of a message's encoding, which scan has found well-formed. With none, or with that
// field twice, the encoding is returned as it is.
func cutLarge(desc protoreflect.MessageDescriptor, wire []byte) ([]byte, largeField) {
	if len(wire) < shareFrom {
		return wire, largeField{}
	}
	var cut largeField
	start, end := 0, 0
	for at := 0; at < len(wire); {
		number, kind, n := protowire.ConsumeField(wire[at:])
		if n < 0 {
			return wire, largeField{}
		}
		field := desc.Fields().ByNumber(number)
		switch {
		case cut.field != nil && number == cut.field.Number():
			return wire, largeField{}
		case n >= shareFrom && kind == protowire.BytesType && field != nil && field.Kind() == protoreflect.BytesKind && !field.IsList():
			_, _, tag := protowire.ConsumeTag(wire[at:])
			value, _ := protowire.ConsumeBytes(wire[at+tag:])
			cut, start, end = largeField{field, value}, at, at+n
		}
		at += n
	}
	if cut.field == nil {
		return wire, largeField{}
	}
	return append(wire[:start:start], wire[end:]...), cut
}

// planOf finds the plan of a message of the API.
func planOf(desc protoreflect.MessageDescriptor) (*plan, error) {
	p, ok := schema.plans[desc]
	if !ok {
		return nil, fmt.Errorf("%s is no message of the agent's API", desc.FullName())
	}
	return p, nil
}

// scan walks the encoding of a message without decoding it. It is at least as strict as the decoder about what is a known field:
// whatever the decoder would keep as unknown, or drop, is reported here. It adds to weight what decoding takes.
func (p *plan) scan(wire []byte, weight *int64) (*UnknownFieldError, error) {
	if *weight += p.weight; *weight > MaxWeight {
		return nil, ErrTooHeavy
	}
	var indexes []int // per field number: elements seen, for the path
	for len(wire) > 0 {
		number, wireType, n := protowire.ConsumeTag(wire)
		if n < 0 {
			return nil, fmt.Errorf("malformed %s: %w", p.name, protowire.ParseError(n))
		}
		wire = wire[n:]
		f := p.known(number, wireType)
		if f == nil {
			return &UnknownFieldError{Message: p.name, Number: number}, nil
		}
		inner := f.message
		if f.entry != nil {
			inner = f.entry
		}
		if inner == nil {
			n = protowire.ConsumeFieldValue(number, wireType, wire)
			if n < 0 {
				return nil, fmt.Errorf("malformed %s: field %s: %w", p.name, f.desc.Name(), protowire.ParseError(n))
			}
			*weight += f.valueWeight(wireType, n)
			wire = wire[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(wire)
		if n < 0 {
			return nil, fmt.Errorf("malformed %s: field %s: %w", p.name, f.desc.Name(), protowire.ParseError(n))
		}
		wire = wire[n:]
		unknown, err := inner.scan(value, weight)
		if err != nil {
			return nil, err
		}
		if indexes == nil {
			indexes = make([]int, len(p.byNumber))
		}
		if unknown != nil {
			return unknown.under(f.desc.Name(), f.suffix(indexes[number])), nil
		}
		indexes[number]++
	}
	return nil, nil
}

// known returns the field with that number if that wire type is one of its own.
func (p *plan) known(number protowire.Number, wireType protowire.Type) *field {
	if int(number) >= len(p.byNumber) {
		return nil
	}
	f := p.byNumber[number]
	if f == nil || wireType != f.wire && !(f.packed && wireType == protowire.BytesType) {
		return nil
	}
	return f
}

// suffix tells element i from the others in a path. The keys of a map are the host's text and stay out of it.
func (f *field) suffix(i int) string {
	switch {
	case f.desc.IsMap():
		return "{}"
	case f.desc.IsList():
		return "[" + strconv.Itoa(i) + "]"
	default:
		return ""
	}
}

// ContainerID returns the container_id of a request; empty if it has none.
func ContainerID(m proto.Message) string {
	p, ok := schema.plans[m.ProtoReflect().Descriptor()]
	if !ok || p.containerID == nil {
		return ""
	}
	return m.ProtoReflect().Get(p.containerID).String()
}

// idFields are the fields that name a container, a process or a sandbox.
var idFields = []protoreflect.Name{"container_id", "exec_id", "sandbox_id"}

// IDFields returns which fields of a message name a container, a process or a sandbox.
func IDFields(desc protoreflect.MessageDescriptor) []protoreflect.Name {
	var names []protoreflect.Name
	for _, name := range idFields {
		if f := desc.Fields().ByName(name); f != nil && f.Kind() == protoreflect.StringKind && !f.IsList() {
			names = append(names, name)
		}
	}
	return names
}
