// SPDX-License-Identifier: Apache-2.0

package agentproto

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Encode returns the deterministic encoding of m, fields by number and map entries by key: equal messages give equal bytes.
func Encode(m proto.Message) ([]byte, error) {
	desc := m.ProtoReflect().Descriptor()
	p, err := planOf(desc)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", p.name, err)
	}
	p.sortOneofs(wire)
	return wire, nil
}

// sortOneofs moves the members of oneofs to their place by number: Go's encoder puts them behind all other fields. Lengths stay
// the same, so that it works in place. wire comes from that encoder and is well-formed.
func (p *plan) sortOneofs(wire []byte) {
	if !p.holdsOneof {
		return
	}
	var records [][]byte // one per field, tag included
	hasMember := false
	for rest := wire; len(rest) > 0; {
		number, wireType, n := protowire.ConsumeTag(rest)
		n += protowire.ConsumeFieldValue(number, wireType, rest[n:])
		record := rest[:n]
		rest = rest[n:]
		records = append(records, record)
		f := p.known(number, wireType)
		if f == nil {
			continue
		}
		hasMember = hasMember || f.variant != nil
		if f.message != nil && f.message.holdsOneof {
			_, _, tag := protowire.ConsumeTag(record)
			value, _ := protowire.ConsumeBytes(record[tag:])
			f.message.sortOneofs(value)
		}
	}
	if !hasMember {
		return
	}
	slices.SortStableFunc(records, func(a, b []byte) int {
		x, _, _ := protowire.ConsumeTag(a)
		y, _, _ := protowire.ConsumeTag(b)
		return cmp.Compare(x, y)
	})
	copy(wire, bytes.Join(records, nil))
}

// EncodeShared is [proto.Marshal] for a message that is sent in two parts: a large bytes field of the message itself is not
// copied. head, which is appended to buf, ends with that field's tag and length, and tail is its value; without such a field
// tail is nil.
func EncodeShared(m proto.Message, buf []byte) (head, tail []byte, err error) {
	r := m.ProtoReflect()
	large := largeBytes(r)
	if large != nil {
		tail = r.Get(large).Bytes()
		r.Clear(large)
		defer r.Set(large, protoreflect.ValueOfBytes(tail))
	}
	if head, err = (proto.MarshalOptions{}).MarshalAppend(buf, m); err != nil {
		return nil, nil, fmt.Errorf("encode %s: %w", WireName(r.Descriptor()), err)
	}
	if large != nil {
		head = protowire.AppendTag(head, large.Number(), protowire.BytesType)
		head = protowire.AppendVarint(head, uint64(len(tail)))
	}
	return head, tail, nil
}

// largeBytes finds the one bytes field that is worth sharing, nil for none.
func largeBytes(m protoreflect.Message) protoreflect.FieldDescriptor {
	p, ok := schema.plans[m.Descriptor()]
	if !ok || !p.holdsBytes {
		return nil
	}
	for _, f := range p.fields {
		if f.message == nil && f.value == nil && f.desc.Kind() == protoreflect.BytesKind && !f.desc.IsList() && len(m.Get(f.desc).Bytes()) >= shareFrom {
			return f.desc
		}
	}
	return nil
}
