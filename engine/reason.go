// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown/print"
)

// MaxReason bounds a reason, in bytes.
const MaxReason = 1 << 10

// OneLine makes s printable as one line of valid UTF-8 of at most limit bytes: what could break the line is a space.
func OneLine(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	s = strings.TrimSpace(s)
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// reason asks the policy why it denied: its reasons rule first, else what it prints. It is empty if the policy has nothing to
// say. It takes at most half of the time that ctx has left, so that the denial itself is never late.
func (p *Policy) reason(ctx context.Context, in evaluation) string {
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(end)/2)
		defer cancel()
	}
	in.strict = false // what was decided stands
	for _, q := range p.program.explanations(ctx, in.entry) {
		if q == nil {
			continue
		}
		if v, err := q.eval(ctx, in); err == nil {
			if s := sentence(v); s != "" {
				return s
			}
		}
	}
	return p.printed(ctx, in)
}

// sentence is a reasons value as text: a string, or a set or array of strings. Anything else is no reason.
func sentence(v ast.Value) string {
	var words []string
	add := func(t *ast.Term) {
		if s, ok := t.Value.(ast.String); ok && s != "" && len(words) < MaxReason {
			words = append(words, string(s))
		}
	}
	switch v := v.(type) {
	case ast.String:
		return OneLine(string(v), MaxReason)
	case ast.Set:
		v.Foreach(add)
	case *ast.Array:
		v.Foreach(add)
	}
	return OneLine(strings.Join(words, "; "), MaxReason)
}

// printed evaluates once more, with prints on, and gives the tail of what was printed.
func (p *Policy) printed(ctx context.Context, in evaluation) string {
	if !p.program.prints || ctx.Err() != nil {
		return ""
	}
	q := p.program.withPrints(ctx, in.entry)
	if q == nil {
		return ""
	}
	var t tail
	in.hook = &t
	_, _ = q.eval(ctx, in) // what it decides here is of no interest
	return t.String()
}

// tail keeps the end of what a policy prints.
type tail struct{ buf []byte }

// Print implements print.Hook.
func (t *tail) Print(_ print.Context, msg string) error {
	if len(t.buf) > 0 {
		t.buf = append(t.buf, "; "...)
	}
	t.buf = append(t.buf, msg[max(0, len(msg)-MaxReason):]...)
	if extra := len(t.buf) - MaxReason; extra > 0 {
		t.buf = append(t.buf[:0], t.buf[extra:]...)
	}
	return nil
}

func (t *tail) String() string {
	b := t.buf
	for len(b) > 0 && !utf8.RuneStart(b[0]) {
		b = b[1:]
	}
	return OneLine(string(b), MaxReason)
}
