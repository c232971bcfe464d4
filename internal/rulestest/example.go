// SPDX-License-Identifier: Apache-2.0

package rulestest

import (
	"regexp/syntax"
	"strings"
)

// Example returns a short string that the pattern matches, the same every time, or "" for an empty or broken pattern.
func Example(pattern string) string {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return ""
	}
	var out strings.Builder
	example(&out, re)
	return out.String()
}

func example(out *strings.Builder, re *syntax.Regexp) {
	switch re.Op {
	case syntax.OpLiteral:
		out.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		out.WriteRune(visible(re.Rune))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		out.WriteByte('x')
	case syntax.OpCapture, syntax.OpPlus, syntax.OpAlternate:
		example(out, re.Sub[0])
	case syntax.OpRepeat:
		for range re.Min {
			example(out, re.Sub[0])
		}
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			example(out, sub)
		}
	}
}

// visible picks a letter or digit of the class where it has one.
func visible(ranges []rune) rune {
	for _, want := range "b10x" {
		for i := 0; i+1 < len(ranges); i += 2 {
			if ranges[i] <= want && want <= ranges[i+1] {
				return want
			}
		}
	}
	if len(ranges) == 0 {
		return 'x' // no string fits
	}
	return ranges[0]
}
