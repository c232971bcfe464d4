// SPDX-License-Identifier: Apache-2.0

// Package agentproto knows the requests that a host sends to a Kata agent.
//
// Everything comes from the protobuf descriptors in agentpb: the methods ([Methods], [Lookup]), the check that a request holds
// nothing the project does not know ([Decode]), and the policy input ([Input]), an OPA value in the JSON shape
// that the agent's own serializer gives:
//
//   - every field is present: zero values, [], {}, null for an absent message,
//     an absent optional field and an empty oneof;
//   - keys are the proto field names, but "type" is "type_";
//   - enums are numbers, bytes are arrays of numbers;
//   - a oneof is one key with an object of one key, the field that is set with
//     its name in camel case: "ErrnoRet": {"Errnoret": 38}.
//
// CopyFileRequest is judged without its contents; see [Input].
//
// What a request meant when it was judged is what the agent gets: forward [EncodeShared] of the decoded message, never the host's
// bytes.
package agentproto
