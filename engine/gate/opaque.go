package gate

import (
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/runtime/protoiface"
	"google.golang.org/protobuf/types/known/emptypb"
)

// opaque is a message whose encoding is taken and given as it is. Requests have to be seen so: decoding one into its own type
// silently drops unknown fields in the entries of maps. And an answer that nobody looks at passes unchanged and uncopied.
//
// It shares the memory it is decoded from, which ttrpc allocates for each message and does not use again.
type opaque struct{ wire []byte }

// Reset forgets the encoding.
func (o *opaque) Reset() { o.wire = nil }

// ProtoReflect shows the message as one of no fields with an encoding of its own.
func (o *opaque) ProtoReflect() protoreflect.Message {
	return opaqueReflection{Message: empty, opaque: o}
}

var empty = (&emptypb.Empty{}).ProtoReflect()

type opaqueReflection struct {
	protoreflect.Message
	opaque *opaque
}

func (r opaqueReflection) Interface() protoreflect.ProtoMessage { return r.opaque }
func (r opaqueReflection) IsValid() bool                        { return true }

func (r opaqueReflection) ProtoMethods() *protoiface.Methods {
	return &protoiface.Methods{
		Flags: protoiface.SupportMarshalDeterministic,
		Unmarshal: func(in protoiface.UnmarshalInput) (protoiface.UnmarshalOutput, error) {
			r.opaque.wire = in.Buf
			return protoiface.UnmarshalOutput{Flags: protoiface.UnmarshalInitialized}, nil
		},
		Marshal: func(in protoiface.MarshalInput) (protoiface.MarshalOutput, error) {
			if in.Buf == nil {
				return protoiface.MarshalOutput{Buf: r.opaque.wire}, nil
			}
			return protoiface.MarshalOutput{Buf: append(in.Buf, r.opaque.wire...)}, nil
		},
		CheckInitialized: func(protoiface.CheckInitializedInput) (protoiface.CheckInitializedOutput, error) {
			return protoiface.CheckInitializedOutput{}, nil
		},
	}
}
