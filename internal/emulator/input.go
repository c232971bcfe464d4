// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/agentproto"
	"portcullis/agentproto/agentpb"
)

// Input is the request as a policy sees it: its entry point and its fields. A
// CopyFile also has what the gate says of its data: data_sha256 and data_size.
func (r Request) Input() (kind string, input map[string]any, err error) {
	kind = string(r.Message.ProtoReflect().Descriptor().Name())
	v, err := agentproto.Input(r.Message)
	if err != nil {
		return "", nil, fmt.Errorf("input of %s: %w", kind, err)
	}
	plain, err := ast.JSON(v)
	if err != nil {
		return "", nil, fmt.Errorf("input of %s: %w", kind, err)
	}
	raw, err := json.Marshal(plain)
	if err != nil {
		return "", nil, fmt.Errorf("input of %s: %w", kind, err)
	}
	if err := json.Unmarshal(raw, &input); err != nil {
		return "", nil, fmt.Errorf("input of %s: %w", kind, err)
	}
	if copied, ok := r.Message.(*agentpb.CopyFileRequest); ok {
		sum := sha256.Sum256(copied.Data)
		input["data_sha256"], input["data_size"] = hex.EncodeToString(sum[:]), float64(len(copied.Data))
	}
	return kind, input, nil
}

// Optional is true for a kind of request that a pod runs without, which a policy may
// deny: reading its output, asking for its counters.
func Optional(kind string) bool {
	return kind == "ReadStreamRequest" || kind == "StatsContainerRequest"
}
