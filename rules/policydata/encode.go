// SPDX-License-Identifier: Apache-2.0

package policydata

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	jsonv2 "github.com/go-json-experiment/json"

	"portcullis/engine/policytext"
)

// JSON returns the policy as text: keys sorted, nil lists and maps written as empty, one line for what fits in lineWidth
// characters, no trailing newline. The same value gives the same bytes.
func (p *Policy) JSON() ([]byte, error) {
	raw, err := jsonv2.Marshal(p) // which writes nil lists and maps as empty ones
	if err != nil {
		return nil, fmt.Errorf("encode policy_data: %w", err)
	}
	tree, err := decodeTree(raw)
	if err != nil {
		return nil, fmt.Errorf("encode policy_data: %w", err)
	}
	var out bytes.Buffer
	writeTree(&out, tree)
	return out.Bytes(), nil
}

// Full returns the full form: the rules, then policy_data as a rule. The text runs on any engine that upstream's policies run on.
func (p *Policy) Full(rules string) ([]byte, error) {
	data, err := p.JSON()
	if err != nil {
		return nil, err
	}
	return slices.Concat([]byte(head(rules)), []byte("policy_data := "), data, []byte("\n")), nil
}

// Compact returns the compact form: the digest of the rules, which the guest must hold, and policy_data.
func (p *Policy) Compact(rules string) ([]byte, error) {
	data, err := p.JSON()
	if err != nil {
		return nil, err
	}
	start := fmt.Sprintf("package agent_policy\n\nrules := %q\n\npolicy_data := ", policytext.DigestOf([]byte(head(rules))).String())
	return slices.Concat([]byte(start), data, []byte("\n")), nil
}

// head is what precedes policy_data in the full form: the rules, ended by one empty line.
func head(rules string) string {
	return strings.TrimRight(rules, "\n") + "\n\n"
}

func decodeTree(raw []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var tree any
	err := dec.Decode(&tree)
	return tree, err
}

// lineWidth keeps lines below the limits that Rego engines have, which begin at 1024 characters. Lines have no indentation: the
// limit on the size of annotations counts every byte.
const lineWidth = 900

func writeTree(out *bytes.Buffer, v any) {
	line := oneLine(v)
	if len(line) <= lineWidth {
		out.Write(line)
		return
	}
	switch v := v.(type) {
	case map[string]any:
		out.WriteString("{\n")
		for i, key := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				out.WriteString(",\n")
			}
			out.Write(oneLine(key))
			out.WriteString(":")
			writeTree(out, v[key])
		}
		out.WriteString("\n}")
	case []any:
		out.WriteString("[\n")
		for i, item := range v {
			if i > 0 {
				out.WriteString(",\n")
			}
			writeTree(out, item)
		}
		out.WriteString("\n]")
	default:
		out.Write(line)
	}
}

// oneLine is compact JSON; encoding/json sorts the keys of maps. Values come from decodeTree, so that encoding cannot fail.
func oneLine(v any) []byte {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v)
	return bytes.TrimRight(out.Bytes(), "\n")
}
