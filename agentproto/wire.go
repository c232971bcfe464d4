// SPDX-License-Identifier: Apache-2.0

package agentproto

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// wirePackages gives the packages of the agent's API, as services and messages are called on the wire, by the protobuf
// packages of [portcullis/agentproto/agentpb]. Those have names of their own because the protobuf runtime ends a program at
// start in which two packages have one name, and "grpc" and "types" are what many are called.
var wirePackages = map[protoreflect.FullName]string{
	"portcullis.agent":       "grpc",
	"portcullis.agent.types": "types",
}

// WireName returns the full name that a message, enumeration or service has in the agent's API, such as
// "grpc.CreateContainerRequest". What is not of the API keeps its own full name.
func WireName(desc protoreflect.Descriptor) string {
	full := string(desc.FullName())
	own := desc.ParentFile().Package()
	wire, ok := wirePackages[own]
	if !ok {
		return full
	}
	return wire + strings.TrimPrefix(full, string(own))
}
