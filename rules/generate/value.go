// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"regexp"
	"slices"
	"strings"

	"portcullis/rules/policydata"
)

// Placeholders that the rules fill in when they know the pod.
const (
	sandboxName      = "$(sandbox-name)"
	sandboxNamespace = "$(sandbox-namespace)"
	sandboxUID       = "$(sandbox-uid)"
)

// Patterns of values that are known only at run time, without anchors.
const (
	ipv4Pattern     = `(?:[0-9]{1,3}\.){3}[0-9]{1,3}`
	ipv6Pattern     = `[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}`
	addressPattern  = `(?:` + ipv4Pattern + `|` + ipv6Pattern + `)`
	hostPattern     = `(?:` + ipv4Pattern + `|\[` + ipv6Pattern + `\])`
	portPattern     = `[0-9]{1,5}`
	numberPattern   = `[0-9]+`
	hostnamePattern = `[a-zA-Z0-9_.-]+`
	dnsPattern      = `[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?`
	uidPattern      = `[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`
)

// part is a piece of a value: exactly one of the first four is set.
type part struct {
	text        string
	placeholder string // sandboxName, sandboxNamespace or sandboxUID
	pattern     string // without anchors
	secret      string // SHA-256 in lower-case hex of a value that is not shown
	mayMiss     bool   // of a pattern: the variable may not be there
}

// value is a string of which some parts may be known only at run time. The zero value is the empty string.
type value []part

func text(s string) value { return value{{text: s}} }

func matching(pattern string) value { return value{{pattern: pattern}} }

func placeholder(name string) value { return value{{placeholder: name}} }

// hidden is a value that is bound without being shown.
func hidden(hash string) value { return value{{secret: hash}} }

// maybe reports whether a variable of this value may not be there.
func (v value) maybe() bool { return len(v) == 1 && v[0].mayMiss }

// unbound reports whether any part of the value may be anything.
func (v value) unbound() bool {
	return slices.ContainsFunc(v, func(p part) bool { return p.pattern == anything })
}

// hash returns the hash of a hidden value, and true when it is nothing else.
func (v value) hash() (string, bool) {
	if len(v) != 1 || v[0].secret == "" {
		return "", false
	}
	return v[0].secret, true
}

// hides reports whether any part of the value is hidden.
func (v value) hides() bool {
	return slices.ContainsFunc(v, func(p part) bool { return p.secret != "" })
}

// templateValue reads a template with placeholders.
func templateValue(template string) value {
	var out value
	for template != "" {
		at, name := len(template), ""
		for _, p := range []string{sandboxName, sandboxNamespace, sandboxUID} {
			if i := strings.Index(template, p); i >= 0 && i < at {
				at, name = i, p
			}
		}
		if at > 0 {
			out = append(out, part{text: template[:at]})
		}
		if name != "" {
			out = append(out, part{placeholder: name})
		}
		template = template[at+len(name):]
	}
	return out
}

// literal returns the string and true when all of it is known.
func (v value) literal() (string, bool) {
	var b strings.Builder
	for _, p := range v {
		if p.placeholder != "" || p.pattern != "" || p.secret != "" {
			return "", false
		}
		b.WriteString(p.text)
	}
	return b.String(), true
}

// template returns the value with its placeholders, and false when it has other
// unknown parts or its text holds what looks like a placeholder.
func (v value) template() (string, bool) {
	var b strings.Builder
	for _, p := range v {
		if p.pattern != "" || p.secret != "" || strings.Contains(p.text, "$(sandbox-") {
			return "", false
		}
		b.WriteString(p.text + p.placeholder)
	}
	return b.String(), true
}

// anchored returns the pattern of the value. Placeholders become what is known of the pod beforehand.
func (v value) anchored(known map[string]string) string {
	var b strings.Builder
	for _, p := range v {
		switch {
		case p.placeholder != "":
			b.WriteString(known[p.placeholder])
		case p.pattern != "":
			b.WriteString(p.pattern)
		default:
			b.WriteString(regexp.QuoteMeta(p.text))
		}
	}
	return "^" + b.String() + "$"
}

// match returns the value for Container.ArgMatches.
func (v value) match(known map[string]string) policydata.Match {
	if t, ok := v.template(); ok {
		return policydata.Match{Template: t}
	}
	return policydata.Match{Pattern: v.anchored(known)}
}

// variables maps the names of environment variables to their values.
type variables map[string]value

// expand replaces $(NAME) as Kubernetes does: an unknown name stays as it is
// written, and $$ is a dollar sign. missing, when not nil, receives unknown names.
func (vars variables) expand(s string, missing func(name string)) value {
	var out value
	var plain strings.Builder
	flush := func() {
		if plain.Len() > 0 {
			out = append(out, part{text: plain.String()})
			plain.Reset()
		}
	}
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			plain.WriteByte(s[i])
			continue
		}
		i++
		end := -1
		if s[i] == '(' {
			end = strings.IndexByte(s[i:], ')')
		}
		switch {
		case s[i] == '$':
			plain.WriteByte('$')
		case end < 0:
			plain.WriteString(s[i-1 : i+1])
		default:
			name := s[i+1 : i+end]
			if v, ok := vars[name]; ok {
				flush()
				out = append(out, v...)
			} else {
				if missing != nil {
					missing(name)
				}
				plain.WriteString("$(" + name + ")")
			}
			i += end
		}
	}
	flush()
	return out
}
