// SPDX-License-Identifier: Apache-2.0

// Package agentpb holds the messages of the Kata agent's ttrpc API 4.1.0.
//
// The .proto files are the project's own; field numbers, names and types are the agent's, so that the wire is the same. The Go
// code is made from them by .ci/tools/protogen. There are no service stubs: [portcullis/agentproto] finds services and methods in
// the descriptors.
package agentpb
