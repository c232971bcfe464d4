// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"regexp"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
)

// asked are rules that a guest or a tool asks for by name. They keep their names, as do those that decide. What people are told of
// checks has the names that these have in the files.
var asked = []string{"pod_complete", "policy", "container"}

// shortNames are the names of rules and functions in the files and what they are called in every text that this package makes.
var shortNames = sync.OnceValue(func() map[string]string {
	files := append(order("policy.rego"), "upstream.rego")
	n := naming{names: map[string]string{}, taken: takenWords(files)}
	kept := map[string]bool{"else": true}
	for _, name := range asked {
		kept[name] = true
	}
	for _, file := range files {
		for _, head := range heads.FindAllStringSubmatch(source(file), -1) {
			if name := head[1]; !kept[name] && n.names[name] == "" {
				n.names[name] = n.name()
			}
		}
	}
	return n.names
})

// heads are the names of rules: those that decide begin with a capital.
var heads = regexp.MustCompile(`(?m)^(?:default )?([a-z_][a-z0-9_]*)(?:\(.*\))?(?: contains .*| :?= .*| if .*)$`)

// takenWords are words that a name would be confused with.
func takenWords(files []string) map[string]bool {
	taken := map[string]bool{"if": true, "in": true, "as": true}
	for name := range ast.BuiltinMap {
		head, _, _ := strings.Cut(name, ".")
		taken[head] = true
	}
	for _, text := range append([]string{words}, plain(files)) {
		for _, word := range token.FindAllString(text, -1) {
			taken[word] = true
		}
	}
	return taken
}

// naming gives names of two letters.
type naming struct {
	names map[string]string
	taken map[string]bool
	next  int
}

func (n *naming) name() string {
	for ; ; n.next++ {
		name := string([]byte{frequent[n.next%len(frequent)], frequent[n.next/len(frequent)]})
		if !n.taken[name] {
			n.taken[name] = true
			return name
		}
	}
}

// WithNames gives the rules that a text speaks of the names that they have in Text, in place of those in the files: for what is to
// be compiled together with Text.
func WithNames(text string) string {
	names := shortNames()
	return token.ReplaceAllStringFunc(text, func(word string) string {
		if name := names[word]; name != "" {
			return name
		}
		return word
	})
}
