// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"fmt"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// lineOf is the line of a TOML text on which a key, or else the last table that is to hold it, is set; 0 if there is none. Path is
// the key's, element by element. It reads lines, not the grammar: what stands inside text of several lines may mislead it.
func lineOf(text []byte, path []string) int {
	var table []string
	best, depth := 0, 0
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSpace(line)
		var key []string
		switch {
		case strings.HasPrefix(line, "["):
			end := strings.LastIndex(line, "]")
			if end < 0 || strings.Contains(line[:end], "=") {
				continue
			}
			table = keyPath(strings.Trim(line[:end], "[] \t"))
			key = table
		default:
			key = slices.Concat(table, keyPath(assigned(line)))
			if len(key) == len(table) {
				continue
			}
		}
		if n := common(key, path); n == len(key) && n > depth {
			best, depth = number, n
		}
	}
	return best
}

// common is how many elements two paths begin with.
func common(a, b []string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// assigned is what stands before the equals sign of a line, "" if there is none.
func assigned(line string) string {
	quote := rune(0)
	for i, c := range line {
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '#':
			return ""
		case c == '=':
			return line[:i]
		}
	}
	return ""
}

// keyPath splits a key of TOML at its dots; nil where it is none.
func keyPath(text string) []string {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	var tree map[string]any
	if _, err := toml.Decode(text+" = 0", &tree); err != nil {
		return nil
	}
	var path []string
	for {
		for key, value := range tree {
			path = append(path, key)
			below, ok := value.(map[string]any)
			if !ok {
				return path
			}
			tree = below
		}
	}
}

// at names the place of a key in the last of the drop-ins that sets it, as NAME:LINE, or a drop-in or platform without a line.
func at(platform string, dropIns []DropIn, path []string) string {
	for _, d := range slices.Backward(dropIns) {
		if line := lineOf(d.Text, path); line > 0 {
			return fmt.Sprintf("%s:%d", d.Name, line)
		}
	}
	if len(dropIns) > 0 {
		return dropIns[len(dropIns)-1].Name
	}
	return "of " + platform
}
