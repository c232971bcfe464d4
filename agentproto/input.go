// SPDX-License-Identifier: Apache-2.0

package agentproto

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"portcullis/agentproto/agentpb"
)

// Input returns the policy input of a request, in the shape the package comment
// gives. Nobody may modify it: terms are shared between inputs.
//
// Each of omit is the path of a bytes field, as [BytesFields] gives it; the key of such a field is then absent. Paths that lead
// to no bytes field have no effect, so that nothing else can be hidden from a policy.
//
// A CopyFileRequest is judged as {path, file_type, symlink_target, file_size, file_mode, dir_mode, uid, gid, offset}: file_type
// is "Regular", "Directory", "Symlink" or "Unknown" as the agent reads file_mode (see [CheckFileMode] for the modes that mean
// several), symlink_target is the data of a symbolic link and null otherwise. A target that is no UTF-8 is [ErrSymlinkTarget].
func Input(m proto.Message, omit ...[]string) (ast.Value, error) {
	if file, ok := m.(*agentpb.CopyFileRequest); ok {
		return copyFileInput(file)
	}
	p, err := planOf(m.ProtoReflect().Descriptor())
	if err != nil {
		return nil, fmt.Errorf("build input: %w", err)
	}
	return p.object(m.ProtoReflect(), omit), nil
}

// BytesFields returns the paths of all bytes fields in the input of a message type, as keys from the outside in: ["data"] for
// WriteStreamRequest. The elements of a list have no key of their own.
func BytesFields(mt protoreflect.MessageType) [][]string {
	p, ok := schema.plans[mt.Descriptor()]
	if !ok || mt.Descriptor() == copyFileType.Descriptor() {
		return nil
	}
	return p.bytesFields(nil)
}

func (p *plan) bytesFields(prefix []string) [][]string {
	if !p.holdsBytes {
		return nil
	}
	var paths [][]string
	for _, f := range p.fields {
		path := append(prefix[:len(prefix):len(prefix)], f.key)
		switch {
		case f.message != nil:
			paths = append(paths, f.message.bytesFields(path)...)
		case f.value != nil && f.value.message != nil:
			paths = append(paths, f.value.message.bytesFields(path)...)
		case f.desc.Kind() == protoreflect.BytesKind:
			paths = append(paths, path)
		}
	}
	return paths
}

// maxFields is the number of fields up to which an object's items need no allocation. The largest message has 13.
const maxFields = 16

// object makes the input of one message.
func (p *plan) object(m protoreflect.Message, omit [][]string) ast.Value {
	if !p.holdsBytes {
		omit = nil
	}
	var buffer [maxFields][2]*ast.Term
	items := buffer[:0]
	terms := make([]ast.Term, len(p.fields)) // one allocation for all values
	for i, f := range p.fields {
		var below [][]string
		if omit != nil {
			var omitted bool
			if below, omitted = f.below(omit); omitted {
				continue
			}
		}
		if f.variant == nil {
			terms[i].Value = f.input(m, below)
		} else if i == 0 || p.fields[i-1].key != f.key {
			terms[i].Value = p.oneof(m, f.desc.ContainingOneof())
		} else {
			continue // another member of the oneof before
		}
		items = append(items, [2]*ast.Term{f.keyTerm, &terms[i]})
	}
	return ast.NewObject(items...)
}

// below returns the paths that go on below f, and whether f itself is left out.
func (f *field) below(omit [][]string) (below [][]string, omitted bool) {
	for _, path := range omit {
		switch {
		case len(path) == 0 || path[0] != f.key:
		case len(path) > 1:
			below = append(below, path[1:])
		case f.message == nil && f.desc.Kind() == protoreflect.BytesKind:
			return nil, true
		}
	}
	return below, false
}

// oneof makes the input of a oneof: null, or an object with the one field that is set.
func (p *plan) oneof(m protoreflect.Message, oneof protoreflect.OneofDescriptor) ast.Value {
	set := m.WhichOneof(oneof)
	if set == nil {
		return ast.InternedNullValue
	}
	f := p.byNumber[set.Number()]
	return ast.NewObject([2]*ast.Term{f.variant, ast.NewTerm(f.single(m.Get(set), nil))})
}

// input makes the input of a field of m.
func (f *field) input(m protoreflect.Message, omit [][]string) ast.Value {
	switch {
	case f.desc.IsList():
		return f.list(m.Get(f.desc).List(), omit)
	case f.desc.IsMap():
		return f.mapping(m.Get(f.desc).Map(), omit)
	case f.desc.HasPresence() && !m.Has(f.desc):
		return ast.InternedNullValue
	default:
		return f.single(m.Get(f.desc), omit)
	}
}

// single makes the input of one value of f.
func (f *field) single(v protoreflect.Value, omit [][]string) ast.Value {
	if f.message != nil {
		return f.message.object(v.Message(), omit)
	}
	return f.scalar(v)
}

func (f *field) list(list protoreflect.List, omit [][]string) ast.Value {
	if list.Len() == 0 {
		return ast.InternedEmptyArrayValue
	}
	terms := make([]ast.Term, list.Len())
	elements := make([]*ast.Term, list.Len())
	for i := range terms {
		terms[i].Value = f.single(list.Get(i), omit)
		elements[i] = &terms[i]
	}
	return ast.NewArray(elements...)
}

func (f *field) mapping(entries protoreflect.Map, omit [][]string) ast.Value {
	if entries.Len() == 0 {
		return ast.InternedEmptyObjectValue
	}
	items := make([][2]*ast.Term, 0, entries.Len())
	entries.Range(func(key protoreflect.MapKey, v protoreflect.Value) bool {
		items = append(items, [2]*ast.Term{ast.StringTerm(key.String()), ast.NewTerm(f.value.single(v, omit))})
		return true
	})
	return ast.NewObject(items...)
}

func stringValue(s string) ast.Value {
	if s == "" {
		return ast.InternedEmptyStringValue
	}
	return ast.String(s)
}

func intValue(i int64) ast.Value {
	return ast.InternedValue(i)
}

func uintValue(u uint64) ast.Value {
	if u > math.MaxInt64 {
		return ast.Number(strconv.FormatUint(u, 10)) // InternedValue would make it negative
	}
	return ast.InternedValue(u)
}

func bytesValue(data []byte) ast.Value {
	if len(data) == 0 {
		return ast.InternedEmptyArrayValue
	}
	elements := make([]*ast.Term, len(data))
	for i, b := range data {
		elements[i] = ast.InternedTerm(int(b))
	}
	return ast.NewArray(elements...)
}

// ErrSymlinkTarget says that a CopyFileRequest makes a symbolic link whose target is no UTF-8 and so cannot be judged.
var ErrSymlinkTarget = errors.New("symlink target is not valid UTF-8")
