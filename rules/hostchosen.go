// SPDX-License-Identifier: Apache-2.0

package rules

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

//go:embed hostchosen.json
var hostChosenJSON []byte

// HostChosen is an entry of the written list of what the host may choose in the requests that create things, and of what. Every
// other field of those requests is held to the policy; tests keep the list and the rules in step.
type HostChosen struct {
	Request string            `json:"request"` // message name
	Domains map[string]Domain `json:"fields"`  // by path; "*" at the end means everything below too
	Fields  []string          `json:"-"`       // the paths, sorted
	Reason  string            `json:"reason"`
}

// Domain is what a field may be beside what the manifest makes of it. In texts and patterns, a name in braces stands for
// something of this pod: "{id}" for the container's id, "{shared}" for the directory of shared files.
type Domain struct {
	Is         []string `json:"is,omitempty"`         // one of these
	Pattern    string   `json:"pattern,omitempty"`    // or text that matches
	Min        *int64   `json:"min,omitempty"`        // or a whole number from here
	Max        *uint64  `json:"max,omitempty"`        // up to here
	Missing    string   `json:"missing,omitempty"`    // what matches may be left out: the field, the key or the item
	Null       bool     `json:"null,omitempty"`       // the message may be there or not
	Twice      bool     `json:"twice,omitempty"`      // an item may be there more than once
	Everywhere bool     `json:"everywhere,omitempty"` // the same wherever it stands, in every request of the container or pod
	Where      string   `json:"where,omitempty"`      // of what alone the field is free
}

// HostChosenFields returns the written list.
func HostChosenFields() []HostChosen {
	var list []HostChosen
	if err := json.Unmarshal(hostChosenJSON, &list); err != nil {
		panic("rules: embedded list of host-chosen fields: " + err.Error())
	}
	for i := range list {
		list[i].Fields = slices.Sorted(maps.Keys(list[i].Domains))
	}
	return list
}

// Domain is what a field of this entry may be, and false for a field that is of none. Paths are written without indices:
// "OCI.Mounts[].source".
func (h HostChosen) Domain(request, path string) (Domain, bool) {
	if h.Request != request {
		return Domain{}, false
	}
	if d, ok := h.Domains[path]; ok {
		return d, true
	}
	for _, field := range h.Fields {
		tree, all := strings.CutSuffix(field, "*")
		if rest, ok := strings.CutPrefix(path, tree); ok && all && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return h.Domains[field], true
		}
	}
	return Domain{}, false
}

// String is the domain in words, in Markdown.
func (d Domain) String() string {
	var may []string
	for _, text := range d.Is {
		if text == "" {
			may = append(may, "empty")
			continue
		}
		may = append(may, "`"+text+"`")
	}
	if d.Pattern != "" {
		may = append(may, "`"+strings.ReplaceAll(d.Pattern, "|", `\|`)+"`")
	}
	if d.Min != nil && d.Max != nil {
		may = append(may, fmt.Sprintf("%d to %d", *d.Min, *d.Max))
	}
	switch d.Missing {
	case "":
	case ".*":
		may = append(may, "missing")
	default:
		may = append(may, "missing where `"+strings.ReplaceAll(d.Missing, "|", `\|`)+"`")
	}
	if d.Null {
		may = append(may, "there or not")
	}
	out := strings.Join(may, ", ")
	if d.Everywhere {
		out += ", the same everywhere"
	}
	if d.Where != "" {
		out += " (" + d.Where + ")"
	}
	return out
}
