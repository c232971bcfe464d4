// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"io"
	"strings"

	"portcullis/rules/policydata"
)

// Style is how a text is written.
type Style struct {
	Color bool
	All   bool // every check and every finding, not the first alone
}

// Write writes an explanation as text: at most three lines, unless s.All is set.
// Title is what the request is called. The caller has hidden what is secret.
func (x *Explanation) Write(out io.Writer, title string, s Style) error {
	p := painter{color: s.Color}
	p.linef("%s %s%s", p.paint(red, "DENY"), p.paint(bold, title), x.subject())
	if len(x.Findings) == 0 {
		p.linef("  the policy says no more: no expression of it was found to have failed")
	} else {
		p.linef("  %s", p.finding(x.Findings[0], x))
	}
	if x.Change != "" {
		p.linef("  %s %s", p.paint(bold, "change:"), x.Change)
	}
	if s.All {
		x.writeAll(&p)
	}
	_, err := io.WriteString(out, p.text.String())
	return err
}

func (x *Explanation) subject() string {
	var parts []string
	switch x.Container {
	case "":
	case policydata.SandboxContainer:
		parts = append(parts, "the pod's sandbox")
	default:
		parts = append(parts, "container "+x.Container)
	}
	if len(x.Findings) > 0 {
		parts = append(parts, "check "+x.Findings[0].Check)
	}
	if x.Line > 0 {
		parts = append(parts, fmt.Sprintf("line %d of the policy", x.Line))
	}
	if len(parts) == 0 {
		return ""
	}
	return ": " + strings.Join(parts, ", ")
}

// Sentence is the first finding in one line: where, what, and what was wanted.
func (x *Explanation) Sentence() string {
	if len(x.Findings) == 0 {
		return "no expression of the policy was found to have failed"
	}
	p := painter{}
	return p.finding(x.Findings[0], x)
}

func (p *painter) finding(f Finding, x *Explanation) string {
	switch {
	case f.Path != "" && f.Got == missing:
		return fmt.Sprintf("%s: %s, wanted %s", p.paint(cyan, f.Path), p.paint(red, string(missing)), p.paint(green, Words(f.Wanted)))
	case f.Path != "":
		return fmt.Sprintf("%s: got %s, wanted %s", p.paint(cyan, f.Path), p.paint(red, Words(f.Got)), p.paint(green, Words(f.Wanted)))
	case f.Wanted != nil:
		return Words(f.Wanted)
	case len(x.Values) > 0:
		return fmt.Sprintf("%s does not hold: %s", p.paint(cyan, x.Rule), p.paint(red, valueWords(x.Values)))
	case len(x.Prints) > 0:
		return fmt.Sprintf("%s does not hold; the policy printed: %s", p.paint(cyan, x.Rule), x.Prints[len(x.Prints)-1])
	}
	return p.paint(cyan, x.Rule) + " does not hold"
}

func (x *Explanation) writeAll(p *painter) {
	for _, c := range x.Checks {
		mark := map[Result]string{Passed: p.paint(green, "✓"), Failed: p.paint(red, "✗"), NotReached: "·"}[c.Result]
		p.linef("    %s %s%s", mark, c.Name, map[bool]string{true: " (not reached)"}[c.Result == NotReached])
	}
	for i, f := range x.Findings {
		if i > 0 {
			p.linef("  also %s", p.finding(f, x))
		}
	}
	if x.Rule != "" {
		p.linef("  rule %s%s", x.Rule, map[bool]string{true: ", with " + valueWords(x.Values)}[len(x.Values) > 0])
	}
	for _, line := range x.Prints {
		p.linef("    print: %s", line)
	}
}

// painter writes lines, in colour or not.
type painter struct {
	color bool
	text  strings.Builder
}

const (
	bold  = "1"
	red   = "31"
	green = "32"
	cyan  = "36"
)

func (p *painter) linef(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	p.text.WriteString(strings.ReplaceAll(line, "\n", " ") + "\n")
}

func (p *painter) paint(code, s string) string {
	s = printable(s) // it may come from a request
	if !p.color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}
