// SPDX-License-Identifier: Apache-2.0

package rules

import (
	_ "embed"
	"encoding/json"
	"strings"
)

//go:embed hostchosen.json
var hostChosenJSON []byte

// HostChosen is an entry of the written list of what the host may choose in the
// requests that create things. Every other field of those requests is held to
// the policy; a test keeps the list and the rules in step.
type HostChosen struct {
	Request string   `json:"request"` // message name
	Fields  []string `json:"fields"`  // paths; "*" at the end means everything below too
	Reason  string   `json:"reason"`
}

// HostChosenFields returns the written list.
func HostChosenFields() []HostChosen {
	var list []HostChosen
	if err := json.Unmarshal(hostChosenJSON, &list); err != nil {
		panic("rules: embedded list of host-chosen fields: " + err.Error())
	}
	return list
}

// Covers says whether a field is of this entry. Paths are written without
// indices: "OCI.Mounts[].source".
func (h HostChosen) Covers(request, path string) bool {
	if h.Request != request {
		return false
	}
	for _, field := range h.Fields {
		tree, all := strings.CutSuffix(field, "*")
		rest, ok := strings.CutPrefix(path, tree)
		if ok && (rest == "" || all && (rest[0] == '.' || rest[0] == '[')) {
			return true
		}
	}
	return false
}
