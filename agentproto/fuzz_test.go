// SPDX-License-Identifier: Apache-2.0

package agentproto

import (
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// requestTypes are the request messages, each once, in a fixed order.
func requestTypes() []protoreflect.MessageType {
	var types []protoreflect.MessageType
	for _, m := range Methods() {
		if !slices.Contains(types, m.Request) {
			types = append(types, m.Request)
		}
	}
	return types
}

// FuzzDecode feeds any bytes to any request message. What is accepted holds no
// unknown field, and means the same after it was encoded again.
func FuzzDecode(f *testing.F) {
	types := requestTypes()
	for _, v := range vectors(f) {
		mt := messageType(f, v.Message)
		f.Add(uint8(slices.Index(types, mt)), v.bytes(f))
	}
	f.Fuzz(func(t *testing.T, which uint8, wire []byte) {
		m, err := Decode(types[int(which)%len(types)], wire)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("error of several lines: %q", err)
			}
			return
		}
		if err := CheckUnknown(m); err != nil {
			t.Errorf("accepted: %v", err)
		}
		checkRoundTrip(t, m)
		value, err := Input(m)
		if err != nil || m.ProtoReflect().Type() == copyFileType {
			return
		}
		text, err := ast.JSON(value)
		if err != nil {
			t.Fatalf("input is no JSON: %v", err)
		}
		checkReversible(t, m, text)
	})
}

// FuzzFromInput feeds any text to any request message.
func FuzzFromInput(f *testing.F) {
	types := requestTypes()
	for _, v := range vectors(f) {
		f.Add(uint8(slices.Index(types, messageType(f, v.Message))), []byte(v.Input))
	}
	f.Add(uint8(slices.Index(types, copyFileType)), []byte(`{"file_type":"Symlink","symlink_target":"x"}`))
	f.Fuzz(func(t *testing.T, which uint8, text []byte) {
		m, err := FromInput(types[int(which)%len(types)], text)
		if err != nil {
			return
		}
		checkRoundTrip(t, m)
	})
}
