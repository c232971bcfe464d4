// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Describe writes the settings with the meaning of each key as TOML: a drop-in that changes nothing.
func (s *Settings) Describe() ([]byte, error) {
	tree, err := s.tree()
	if err != nil {
		return nil, err
	}
	d := describer{keys: Keys()}
	d.table(tree, reflect.TypeFor[Settings](), nil)
	return d.out.Bytes(), nil
}

// tree is the settings by their keys.
func (s *Settings) tree() (tree map[string]any, err error) {
	raw, err := json.Marshal(s)
	if err == nil {
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber() // bits are written as they are
		err = dec.Decode(&tree)
	}
	if err != nil {
		return nil, fmt.Errorf("describe settings: %w", err)
	}
	return tree, nil
}

type describer struct {
	out  bytes.Buffer
	keys []Key
}

// table writes the keys of a table in the order of its type.
func (d *describer) table(tree map[string]any, t reflect.Type, path []string) {
	for i := range t.NumField() {
		name, of := keyName(t.Field(i)), t.Field(i).Type
		if name == "" {
			continue
		}
		here := append(slices.Clone(path), name)
		value, ok := tree[name]
		switch below, isTable := value.(map[string]any); {
		case isTable && of.Kind() == reflect.Struct:
			d.table(below, of, here)
		case isTable && of.Kind() == reflect.Map && holdsTables(of.Elem()):
			d.comment(here)
			d.entries(below, here)
		default:
			d.comment(here)
			d.value(here, value, ok)
		}
	}
}

// entries writes tables that the user names, each on a line.
func (d *describer) entries(tables map[string]any, path []string) {
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		fmt.Fprintf(&d.out, "%s = %s\n", keyText(append(slices.Clone(path), name)), inline(tables[name]))
	}
	d.out.WriteString("\n")
}

func (d *describer) value(path []string, value any, there bool) {
	if there && value != nil {
		fmt.Fprintf(&d.out, "%s = %s\n\n", keyText(path), inline(value))
		return
	}
	fmt.Fprintf(&d.out, "# %s is not set\n\n", keyText(path))
}

// comment writes what the key means; for tables what each key in them means.
func (d *describer) comment(path []string) {
	name := strings.Join(path, ".")
	for _, k := range d.keys {
		switch rest, below := strings.CutPrefix(k.Path, name); {
		case k.Path == name:
			fmt.Fprintf(&d.out, "# %s (%s)\n", k.Meaning, k.Type)
		case below && (rest[0] == '.' || rest[0] == '['):
			_, rest, _ = strings.Cut(strings.TrimPrefix(rest, "."), ".")
			fmt.Fprintf(&d.out, "# %s: %s (%s)\n", rest, k.Meaning, k.Type)
		}
	}
}

// inline writes a value as TOML on one line.
func inline(value any) string {
	switch value := value.(type) {
	case map[string]any:
		var parts []string
		for _, key := range slices.Sorted(maps.Keys(value)) {
			if value[key] != nil { // TOML has no null: the key is absent
				parts = append(parts, keyText([]string{key})+" = "+inline(value[key]))
			}
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case []any:
		var parts []string
		for _, item := range value {
			parts = append(parts, inline(item))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case string:
		return strconv.Quote(value)
	case nil:
		return "[]"
	}
	return fmt.Sprint(value)
}

var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func keyText(path []string) string {
	parts := slices.Clone(path)
	for i, part := range parts {
		if !bareKey.MatchString(part) {
			parts[i] = strconv.Quote(part)
		}
	}
	return strings.Join(parts, ".")
}

// shortest is the longest value that the document shows.
const shortest = 60

// Document is the page of all keys, in Markdown, with the values of the default platform.
func Document() ([]byte, error) {
	s, err := Load(DefaultPlatform)
	if err != nil {
		return nil, err
	}
	tree, err := s.tree()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString(documentHead)
	section := ""
	for _, k := range Keys() {
		if first, _, below := strings.Cut(k.Path, "."); below && first != section {
			section = first
			fmt.Fprintf(&out, "\n## %s\n\n| key | values | default | meaning |\n|---|---|---|---|\n", section)
		} else if section == "" && out.Len() == len(documentHead) {
			out.WriteString("\n| key | values | default | meaning |\n|---|---|---|---|\n")
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", k.Path, k.Type, shown(tree, k.Path), cell(k.Meaning))
	}
	return out.Bytes(), nil
}

func cell(text string) string { return strings.ReplaceAll(text, "|", "\\|") }

// shown is the value at a path, if it is one value and short.
func shown(tree map[string]any, path string) string {
	var value any = tree
	for _, part := range strings.Split(path, ".") {
		table, ok := value.(map[string]any)
		if !ok {
			return ""
		}
		value = table[part]
	}
	if value == nil {
		return ""
	}
	text := inline(value)
	if len(text) > shortest {
		return "…"
	}
	return "`" + cell(text) + "`"
}

const documentHead = `# Settings of genpolicy

<!-- Made by make generate from rules/settings: do not edit. -->

Settings say what the pods of a platform look like apart from their manifests, and what the host may ask for beyond what the
rules allow by themselves. ` + "`genpolicy --platform NAME`" + ` chooses those of a platform; ` + "`-j FILE`" + ` puts a TOML file over them, in which
only what differs stands: tables are merged key by key, everything else is replaced, and a key whose value is ` + "`\"$(remove)\"`" + ` is
taken away. ` + "`genpolicy settings --platform NAME [-j FILE]`" + ` prints all keys with their meaning and values, as TOML that ` + "`-j`" + ` reads;
` + "`genpolicy settings learn`" + ` finds what a cluster needs ([genpolicy.md](genpolicy.md#settings-of-a-cluster)). A key or value that does not
exist is refused with its file and line.

Patterns are regular expressions (RE2), anchored at both ends: ` + "`^...$`" + `. In a path, NAME, DESTINATION, KIND and KEY stand for what
you choose, and ` + "`[]`" + ` for an item of a list of tables. Defaults are those of the platform ` + "`" + DefaultPlatform + "`" + `; ` + "`…`" + ` is one too long for a table.
`
