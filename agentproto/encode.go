package agentproto

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Encode returns the deterministic encoding of m, fields by number and map
// entries by key: equal messages give equal bytes.
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

// sortOneofs moves the members of oneofs to their place by number: Go's encoder
// puts them behind all other fields. Lengths stay the same, so that it works in
// place. wire comes from that encoder and is well-formed.
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
