// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// secretsOf are the values of variables that the request and the policy hold: prints and rules may repeat them. Short ones say
// nothing and would hide everything that looks like them.
func secretsOf(s *session) []string {
	var entries []string
	entries = append(entries, texts(at(s.input, "OCI", "Process", "Env"))...)
	entries = append(entries, texts(at(s.input, "process", "Env"))...)
	data, err := s.eval("policy_data")
	if err == nil {
		containers := list(at(data, "containers"))
		for _, c := range object(at(data, "containers")) {
			containers = append(containers, c)
		}
		for _, c := range containers {
			entries = append(entries, texts(at(c, "OCI", "Process", "Env"))...)
			entries = append(entries, texts(at(c, "env", "fixed"))...)
		}
	}
	var values []string
	for _, entry := range entries {
		if _, value, ok := strings.Cut(entry, "="); ok && len(value) >= 4 {
			values = append(values, value)
		}
	}
	slices.SortFunc(values, func(a, b string) int { return len(b) - len(a) })
	return slices.Compact(values)
}

const hidden = "(hidden)"

// credential is an option of a mount or storage that carries one.
var credential = regexp.MustCompile(`(?i)\b(pass(?:word|wd)?|credentials?|token)=[^\s",]+`)

// Hide takes the workload's secrets out of an explanation: values of variables, wherever they show, and credentials in options.
func (x *Explanation) Hide() {
	for i := range x.Findings {
		f := &x.Findings[i]
		if f.Secret {
			f.Wanted, f.Got = veil(f.Wanted), veil(f.Got)
			if f.Wanted == f.Got && f.Got != missing {
				f.Got = Phrase(strings.Replace(fmt.Sprint(f.Got), " characters", " other characters", 1))
			}
			continue
		}
		f.Wanted, f.Got = hideIn(f.Wanted), hideIn(f.Got)
	}
	for i := range x.Prints {
		x.Prints[i] = x.hideText(x.Prints[i])
	}
	x.Rule = x.hideText(x.Rule)
	for i, v := range x.Values {
		x.Values[i].Value = x.hideAll(v.Value)
	}
}

// veil says how long a value is, and nothing else of it.
func veil(v any) Phrase {
	if p, ok := v.(Phrase); ok {
		return p
	}
	if s, ok := v.(string); ok {
		return Phrase(fmt.Sprintf("(hidden, %d characters)", utf8.RuneCountInString(s)))
	}
	return hidden
}

func hideIn(v any) any {
	return eachText(v, func(text string) string { return credential.ReplaceAllString(text, "$1="+hidden) })
}

// hideAll hides secrets wherever they are in a value.
func (x *Explanation) hideAll(v any) any { return eachText(v, x.hideText) }

// eachText is a value with what f makes of every text in it.
func eachText(v any, f func(text string) string) any {
	switch v := v.(type) {
	case string:
		return f(v)
	case []string:
		out := make([]string, len(v))
		for i := range v {
			out[i] = f(v[i])
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = eachText(v[i], f)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for key := range v {
			out[key] = eachText(v[key], f)
		}
		return out
	}
	return v
}

func (x *Explanation) hideText(text string) string {
	for _, secret := range x.secrets {
		text = strings.ReplaceAll(text, secret, hidden)
	}
	return credential.ReplaceAllString(text, "$1="+hidden)
}

// Words is a value as a reader wants it: short, on one line, strings as they are where that is plain.
func Words(v any) string {
	var s string
	switch v := v.(type) {
	case nil:
		return "nothing"
	case Phrase:
		s = string(v)
	case oneOf:
		words := make([]string, len(v))
		for i := range v {
			words[i] = Words(v[i])
		}
		s = alternatives(words)
	case [][]string:
		words := make([]string, len(v))
		for i := range v {
			words[i] = quote(v[i])
		}
		s = alternatives(words)
	case string:
		if s = v; s == "" || strings.ContainsAny(s, " \t\n\"") && !isSentence(s) {
			s = quote(s)
		}
	default:
		s = quote(v)
	}
	if runes := []rune(s); len(runes) > 160 {
		s = string(runes[:159]) + "…"
	}
	return printable(s)
}

// alternatives words a choice.
func alternatives(words []string) string {
	switch len(words) {
	case 0:
		return "none"
	case 1:
		return words[0]
	}
	return "one of " + strings.Join(words, ", ")
}

// isSentence tells the words of a finding of the rules from a value with blanks: they speak in lower-case words.
func isSentence(s string) bool {
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz ,:-") == ""
}

func quote(v any) string {
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSpace(out.String())
}
