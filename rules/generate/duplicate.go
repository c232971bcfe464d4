// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// duplicate returns a key that a map of the document has twice, nil when there is none. kubectl would take the last one in
// silence. A key beside a merge that brings the same one is none: which of them counts is what kubectl's own YAML library,
// which reads the values, says.
func duplicate(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.MappingNode {
		seen := map[string]bool{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" {
				continue
			}
			if seen[key.Value] {
				return key
			}
			seen[key.Value] = true
		}
	}
	for _, child := range n.Content {
		if found := duplicate(child); found != nil {
			return found
		}
	}
	return nil
}

// twice makes a finding of a key that is there twice.
func (d *document) twice(key *yaml.Node) *Finding {
	return &Finding{File: d.file, Line: d.line + max(key.Line, 1) - 1,
		Text: fmt.Sprintf("is not valid YAML: key %.100q already set in map; write it once", key.Value)}
}
