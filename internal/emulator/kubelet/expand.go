// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// expand replaces $(NAME) by the value of the variable, and $$ by $. A name that is not known stays as it is.
func expand(text string, values map[string]string) string {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, "$")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		if strings.HasPrefix(rest, "$") {
			out.WriteByte('$')
			text = rest[1:]
			continue
		}
		name, after, closed := strings.Cut(strings.TrimPrefix(rest, "("), ")")
		if !strings.HasPrefix(rest, "(") || !closed {
			out.WriteByte('$')
			text = rest
			continue
		}
		if value, ok := values[name]; ok {
			out.WriteString(value)
		} else {
			out.WriteString("$(" + name + ")")
		}
		text = after
	}
}

func expandAll(texts []string, values map[string]string) []string {
	var out []string
	for _, text := range texts {
		out = append(out, expand(text, values))
	}
	return out
}

// Command is what the kubelet runs for an exec probe: only variables that have
// their values in the manifest are replaced, and their text is.
func Command(argv []string, c *corev1.Container) []string {
	plain := map[string]string{}
	for _, v := range c.Env {
		plain[v.Name] = v.Value
	}
	return expandAll(argv, plain)
}
