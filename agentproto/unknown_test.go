// SPDX-License-Identifier: Apache-2.0

package agentproto

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// CheckUnknown refuses a decoded message that holds unknown fields at any depth, with an [*UnknownFieldError]. It cannot see
// unknown fields in the entries of a map, which the decoder has dropped: [Decode] does.
func CheckUnknown(m proto.Message) error {
	p, err := planOf(m.ProtoReflect().Descriptor())
	if err != nil {
		return fmt.Errorf("check for unknown fields: %w", err)
	}
	if unknown := p.unknown(m.ProtoReflect()); unknown != nil {
		return fmt.Errorf("%s: %w", p.name, unknown)
	}
	return nil
}

// unknown finds the first unknown field of m.
func (p *plan) unknown(m protoreflect.Message) *UnknownFieldError {
	if raw := m.GetUnknown(); len(raw) > 0 {
		number, _, _ := protowire.ConsumeTag(raw)
		return &UnknownFieldError{Message: p.name, Number: number}
	}
	for _, f := range p.nested {
		if !m.Has(f.desc) {
			continue
		}
		if unknown := f.unknown(m.Get(f.desc)); unknown != nil {
			return unknown
		}
	}
	return nil
}

// unknown finds the first unknown field below the value of f.
func (f *field) unknown(v protoreflect.Value) (unknown *UnknownFieldError) {
	switch {
	case f.desc.IsMap():
		v.Map().Range(func(_ protoreflect.MapKey, element protoreflect.Value) bool {
			unknown = f.value.message.unknown(element.Message())
			if unknown != nil {
				unknown = unknown.under(f.desc.Name(), f.suffix(0))
			}
			return unknown == nil
		})
	case f.desc.IsList():
		list := v.List()
		for i := range list.Len() {
			if unknown = f.message.unknown(list.Get(i).Message()); unknown != nil {
				return unknown.under(f.desc.Name(), f.suffix(i))
			}
		}
	default:
		if unknown = f.message.unknown(v.Message()); unknown != nil {
			return unknown.under(f.desc.Name(), "")
		}
	}
	return unknown
}
