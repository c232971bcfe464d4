// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"fmt"
	"slices"
	"strings"

	"portcullis/agentproto"
)

// allRules allows every request of the API.
var allRules = func() string {
	var names []string
	for _, m := range agentproto.Methods() {
		names = append(names, m.EntryPoint())
	}
	slices.Sort(names)
	var text strings.Builder
	for _, name := range slices.Compact(names) {
		fmt.Fprintf(&text, "default %s := true\n\n", name)
	}
	return text.String()
}()
