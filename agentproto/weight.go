// SPDX-License-Identifier: Apache-2.0

package agentproto

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// What things take in memory once decoded and built into an input, in bytes; a test holds them against what is allocated.
const (
	weightOfMessage = 400 // header of a Go message and of an object, and their places in lists
	weightOfField   = 80  // a field of a Go message, and an object's key with its term
	weightOfElement = 96  // a string or number in a list, with its term
	weightOfPacked  = 64  // a byte of packed numbers
	weightOfEntry   = 220 // an entry of a map, in a Go map and in an object
)

// messageWeight is what a message takes that has nothing set: its input has a key for each field all the same.
func messageWeight(desc protoreflect.MessageDescriptor) int64 {
	if desc.IsMapEntry() {
		return weightOfEntry
	}
	return weightOfMessage + weightOfField*int64(desc.Fields().Len())
}

// valueWeight is what one value of n encoded bytes takes. Packed numbers can be one byte each.
func (f *field) valueWeight(wireType protowire.Type, n int) int64 {
	switch {
	case f.packed && wireType == protowire.BytesType:
		return int64(n) * weightOfPacked
	case f.desc.IsList():
		return weightOfElement + int64(n)
	case f.desc.Kind() == protoreflect.BytesKind && n >= shareFrom:
		return 0
	default:
		return int64(n)
	}
}
