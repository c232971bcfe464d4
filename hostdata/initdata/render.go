// SPDX-License-Identifier: Apache-2.0

package initdata

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// New makes a document of data with algorithm. The same arguments give the same bytes: version, algorithm, then the data by key,
// values of several lines as readable literals. Every value is read back exactly as given.
func New(algorithm Algorithm, data map[string]string) (*Document, error) {
	var text strings.Builder
	fmt.Fprintf(&text, "version = %q\nalgorithm = %q\n\n[data]\n", Version, string(algorithm))
	for _, key := range slices.Sorted(maps.Keys(data)) {
		if !utf8.ValidString(key) || !utf8.ValidString(data[key]) {
			return nil, fmt.Errorf("make initdata: %w: data %.64q is not UTF-8", ErrInvalid, key)
		}
		fmt.Fprintf(&text, "%s = %s\n", quoteLine(key), quote(data[key]))
	}
	doc, err := Parse([]byte(text.String()))
	if err != nil {
		return nil, fmt.Errorf("make initdata: %w", err)
	}
	if !maps.Equal(doc.data, data) {
		return nil, fmt.Errorf("make initdata: %w: a value does not survive TOML", ErrInvalid)
	}
	return doc, nil
}

// quote returns value as a TOML string of the most readable kind that can hold it.
func quote(value string) string {
	switch {
	case !strings.Contains(value, "\n"):
		return quoteLine(value)
	case literal(value):
		// The line end after the opening quotes is not part of the value.
		return "'''\n" + value + "'''"
	default:
		lines := strings.Split(value, "\n")
		for i, line := range lines {
			lines[i] = escape(line)
		}
		return "\"\"\"\n" + strings.Join(lines, "\n") + `"""`
	}
}

func quoteLine(value string) string { return `"` + escape(value) + `"` }

// literal reports whether value can stand as it is in a TOML multi-line literal.
func literal(value string) bool {
	return !strings.Contains(value, "'''") && !strings.HasSuffix(value, "'") &&
		!strings.ContainsFunc(value, func(r rune) bool { return control(r) && r != '\n' })
}

// control reports whether TOML forbids r in a string other than as an escape.
func control(r rune) bool { return (r < ' ' && r != '\t') || r == 0x7f }

func escape(value string) string {
	var b strings.Builder
	for _, r := range value {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\r':
			b.WriteString(`\r`)
		case control(r):
			b.WriteString(`\u00` + strings.ToUpper(strconv.FormatInt(int64(r)|0x100, 16)[1:]))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
