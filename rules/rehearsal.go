// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/json"
	"fmt"

	"portcullis/engine/policytext"
)

// rehearsal is compressed, as policyd has little room: zcat shows it.
//
//go:embed rehearsal.json.gz
var rehearsal []byte

// Rehearsal is a pod that is none, and what creates it. Who decides its requests by its policy, in order, has run the rules once:
// their patterns are compiled and their evaluation is in memory before anybody waits for it.
type Rehearsal struct {
	Policy   []byte // in the compact form
	Requests []RehearsedRequest
}

// RehearsedRequest is one request of a rehearsal, which its policy allows.
type RehearsedRequest struct {
	EntryPoint string          `json:"entry_point"`
	Input      json.RawMessage `json:"input"`
}

// NewRehearsal reads what this release rehearses.
func NewRehearsal() (*Rehearsal, error) {
	var stored struct {
		Policy   json.RawMessage    `json:"policy_data"`
		Requests []RehearsedRequest `json:"requests"`
	}
	text, err := gzip.NewReader(bytes.NewReader(rehearsal))
	if err == nil {
		err = json.NewDecoder(text).Decode(&stored)
	}
	if err != nil {
		return nil, fmt.Errorf("rehearsal: %w", err)
	}
	policy := fmt.Sprintf("package agent_policy\n\nrules := \"%v\"\n\npolicy_data := %s\n", policytext.DigestOf([]byte(Text())), stored.Policy)
	return &Rehearsal{Policy: []byte(policy), Requests: stored.Requests}, nil
}
