// SPDX-License-Identifier: Apache-2.0

package rules

import (
	_ "embed"
	"encoding/json"
	"strings"
)

//go:embed requests.json
var requestsJSON []byte

// Stance is what the rules say to a kind of request before looking at a policy.
type Stance string

// Values of Stance.
const (
	Allowed Stance = "allowed" // whatever the request holds
	Checked Stance = "checked" // allowed where the checks hold
	Denied  Stance = "denied"  // unless the policy asks for it
)

// Entry is an entry point of the rules. The agent has one method more than messages: both methods that read a stream have one.
type Entry struct {
	Request string `json:"request"` // message name
	Default Stance `json:"default"`
	Checks  string `json:"checks"` // one or two sentences, Markdown
}

// Entries returns the entry points in the order of the agent's methods.
func Entries() []Entry {
	var list []Entry
	if err := json.Unmarshal(requestsJSON, &list); err != nil {
		panic("rules: embedded list of requests: " + err.Error())
	}
	return list
}

// Listable are the requests that policy_data can allow whole, in requests.allow, sorted as [Entries].
func Listable() []string {
	var names []string
	for _, e := range Entries() {
		if strings.Contains(e.Checks, "requests.allow") {
			names = append(names, e.Request)
		}
	}
	return names
}
