// SPDX-License-Identifier: Apache-2.0

package policydata

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	jsonv2 "github.com/go-json-experiment/json"

	"portcullis/engine/policytext"
	"portcullis/internal/strictjson"
)

// ErrUpstream is returned by Parse for policy_data that is not in this project's shape.
var ErrUpstream = errors.New("it is in the shape of upstream's genpolicy, not in this project's")

// Parse reads policy_data from a full or compact policy text or from bare JSON. Unknown keys, keys in another case, keys that are
// there twice and an unknown version are errors; the policy's own consistency is Validate's to judge.
func Parse(text []byte) (*Policy, policytext.Parts, error) {
	parts, err := policytext.Split(text)
	if err != nil {
		return nil, parts, fmt.Errorf("parse policy: %w", err)
	}
	if IsUpstream(parts.Data) {
		return nil, parts, fmt.Errorf("parse policy_data: %w", ErrUpstream)
	}
	var p Policy
	if err := jsonv2.Unmarshal(parts.Data, &p, jsonv2.RejectUnknownMembers(true)); err != nil {
		return nil, parts, fmt.Errorf("parse policy_data: %w", err)
	}
	if p.Version != Version {
		return nil, parts, fmt.Errorf("parse policy_data: version %d, want %d", p.Version, Version)
	}
	for name, c := range p.Containers {
		if c == nil {
			return nil, parts, fmt.Errorf("parse policy_data: container %q is null", name)
		}
	}
	return &p, parts, nil
}

// IsUpstream says whether policy_data is in the shape of upstream's genpolicy: its containers are a list.
func IsUpstream(data []byte) bool {
	var v struct {
		Containers json.RawMessage `json:"containers"`
	}
	err := strictjson.Unmarshal(data, &v)
	return err == nil && bytes.HasPrefix(v.Containers, []byte("["))
}
