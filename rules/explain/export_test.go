// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"regexp"
	"strings"
)

// AllAdvice are the words on what to change, as templates.
func AllAdvice() []string {
	all := []string{noContainer, sandboxRuntimes, pauseUser, runtimeMount, noSuchContainer}
	for _, a := range advices {
		all = append(all, a.words)
	}
	return all
}

// AdviceOf is the template that words were made of, "" if none.
func AdviceOf(words string) string {
	for _, template := range AllAdvice() {
		pattern := regexp.QuoteMeta(template)
		for _, name := range []string{"$(where)", "$(key)"} {
			pattern = strings.ReplaceAll(pattern, regexp.QuoteMeta(name), ".+")
		}
		if regexp.MustCompile("^" + pattern + "$").MatchString(words) {
			return template
		}
	}
	return ""
}
