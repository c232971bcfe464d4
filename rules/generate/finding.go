// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"errors"
	"fmt"
	"strings"
)

// Finding is something to say about one place in a manifest. As an error it is a refusal, otherwise a warning.
type Finding struct {
	File  string // as given to Parse
	Line  int    // 1-based, 0 when unknown
	Field string // path from the document's root, such as "spec.containers[0].image"; "" for the document
	Text  string // one sentence, without a full stop
}

// Error returns "file:line: field: text".
func (f *Finding) Error() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d", f.Line)
	}
	if f.Field != "" {
		b.WriteString(": " + f.Field)
	}
	b.WriteString(": " + f.Text)
	return b.String()
}

// Findings returns the refusals that err holds, in order, and whether err is
// nothing but refusals: the manifest's fault rather than a failure to look.
func Findings(err error) ([]*Finding, bool) {
	if err == nil {
		return nil, true
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*Finding
		only := true
		for _, e := range joined.Unwrap() {
			found, ok := Findings(e)
			all, only = append(all, found...), only && ok
		}
		return all, only
	}
	var f *Finding
	if errors.As(err, &f) {
		return []*Finding{f}, true
	}
	return nil, false
}
