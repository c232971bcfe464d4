// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// edit replaces bytes of a file. set is the same change to the decoded document, which the edited text must agree with.
type edit struct {
	doc      *document
	from, to int // in the document's text
	text     string
	path     []string // keys of objects; items of lists as "[i]"
	value    string
}

// Annotate writes an annotation of the pod into the file, in place of the one
// that is there. value must be one line without quotes or spaces, as base64 is.
func (m *Manifest) Annotate(p *Pod, key, value string) error {
	if strings.ContainsAny(value, " \t\r\n\"'\\#:{}[],&*!|>%@`") || value == "" {
		return p.fault("metadata.annotations", "cannot hold the policy: the value is not one word")
	}
	at, err := m.placeAnnotation(p, key, value)
	if err != nil {
		return err
	}
	at.doc, at.value = p.doc, value
	at.path = append(segments(p.doc.root, p.field), "metadata", "annotations", key)
	m.edits = append(m.edits, *at)
	return nil
}

// placeAnnotation finds where in the text the annotation goes.
func (m *Manifest) placeAnnotation(p *Pod, key, value string) (*edit, error) {
	blocked := func(what string) error {
		return p.fault("metadata.annotations", "cannot be written to, because "+what+"; write it out")
	}
	template, parentKey, shared := walk(p.doc.root, p.field)
	if shared {
		return nil, blocked("it is in a YAML alias")
	}
	metaKey, meta := entry(template, "metadata")
	if meta == nil {
		return p.doc.insert(template, parentKey, []string{"metadata", "annotations", key}, value), nil
	}
	noteKey, notes := entry(meta, "annotations")
	switch {
	case meta.Kind == yaml.AliasNode:
		return nil, blocked("metadata is a YAML alias")
	case notes == nil && hasMerge(meta):
		return nil, blocked("metadata merges another map")
	case notes == nil:
		return p.doc.insert(meta, metaKey, []string{"annotations", key}, value), nil
	case notes.Kind == yaml.AliasNode:
		return nil, blocked("annotations is a YAML alias")
	case notes.Kind == yaml.ScalarNode || len(notes.Content) == 0:
		return p.doc.fill(meta, noteKey, notes, key, value)
	}
	oldKey, old := entry(notes, key)
	if old == nil {
		return p.doc.insert(notes, noteKey, []string{key}, value), nil
	}
	return p.doc.replace(oldKey, old, value, notes.Style&yaml.FlowStyle != 0)
}

// lockImage writes another image reference into the file, at a field below the pod.
func (m *Manifest) lockImage(p *Pod, field, image string) error {
	path := join(p.field, field)
	node, key, shared := walk(p.doc.root, path)
	if node == nil || shared || node.Kind != yaml.ScalarNode {
		return p.fault(field, "cannot be written to, because it is in a YAML alias; write it out")
	}
	at, err := p.doc.replace(key, node, `"`+image+`"`, false)
	if err != nil {
		return err
	}
	at.doc, at.value, at.path = p.doc, image, segments(p.doc.root, path)
	m.edits = append(m.edits, *at)
	return nil
}

// Text returns the file with all that was written into it. Every other byte is as it was read.
func (m *Manifest) Text() ([]byte, error) {
	edits := slices.Clone(m.edits)
	slices.SortStableFunc(edits, func(a, b edit) int { return (a.doc.from + a.from) - (b.doc.from + b.from) })
	var out bytes.Buffer
	last := 0
	for _, e := range edits {
		from, to := e.doc.from+e.from, e.doc.from+e.to
		if from < last {
			return nil, e.doc.fault("", "would be changed twice in one place; write it out without aliases")
		}
		out.Write(m.text[last:from])
		out.WriteString(e.text)
		last = to
	}
	out.Write(m.text[last:])
	if err := m.check(out.Bytes(), edits); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// check compares the edited text with what it must mean.
func (m *Manifest) check(text []byte, edits []edit) error {
	docs, err := split(m.file, text)
	if err != nil || len(docs) != len(m.docs) {
		return &Finding{File: m.file, Text: "cannot be changed without breaking its YAML; write it in plain block style"}
	}
	for i, doc := range m.docs {
		var got, want any
		if json.Unmarshal(docs[i].json, &got) != nil || json.Unmarshal(doc.json, &want) != nil {
			return doc.fault("", "cannot be read back")
		}
		for _, e := range edits {
			if e.doc == doc {
				want = set(want, e.path, e.value)
			}
		}
		if !reflect.DeepEqual(got, want) {
			return doc.fault("", "cannot be changed in place; write it in plain block style")
		}
	}
	return nil
}

// set returns tree with value at path.
func set(tree any, path []string, value string) any {
	if len(path) == 0 {
		return value
	}
	if list, ok := tree.([]any); ok {
		var i int
		if _, err := fmt.Sscanf(path[0], "[%d]", &i); err == nil && i < len(list) {
			list[i] = set(list[i], path[1:], value)
		}
		return list
	}
	m, ok := tree.(map[string]any)
	if !ok {
		m = map[string]any{}
	}
	m[path[0]] = set(m[path[0]], path[1:], value)
	return m
}

// walk follows a field from a document's root. It returns the value, the key
// before it (nil in lists and for the root), and whether an alias was on the way.
func walk(n *yaml.Node, field string) (value, key *yaml.Node, shared bool) {
	for field != "" {
		shared = shared || n.Kind == yaml.AliasNode || n.Anchor != ""
		k, v, rest := step(n, field)
		if v == nil {
			return nil, nil, shared
		}
		key, n, field = k, v, rest
	}
	return n, key, shared || n.Kind == yaml.AliasNode
}

// segments returns a field path as its parts.
func segments(n *yaml.Node, field string) []string {
	var parts []string
	for field != "" {
		key, value, rest := step(n, field)
		if value == nil {
			return append(parts, field)
		}
		if key == value {
			index, _, _ := strings.Cut(field, "]")
			parts = append(parts, index+"]")
		} else {
			parts = append(parts, key.Value)
		}
		n, field = value, rest
	}
	return parts
}

func entry(n *yaml.Node, key string) (k, v *yaml.Node) {
	n = resolve(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i], n.Content[i+1]
		}
	}
	return nil, nil
}

func hasMerge(n *yaml.Node) bool {
	key, _ := entry(n, "<<")
	return key != nil
}

// insert adds keys[0]: {keys[1]: … value} as the first entry of a map. key is the
// key that the map stands behind, nil for the document itself.
func (d *document) insert(in, key *yaml.Node, keys []string, value string) *edit {
	if in.Style&yaml.FlowStyle != 0 {
		at := d.offset(in)
		at += bytes.IndexByte(d.text[at:], '{') + 1 // behind an anchor
		text := flow(keys, value)
		if len(in.Content) > 0 {
			text += ", "
		}
		return &edit{from: at, to: at, text: text}
	}
	first := in // an anchor stands before it, maybe on the line of the key
	if len(in.Content) > 0 {
		first = in.Content[0]
	}
	at := d.lineStart(first.Line)
	if key != nil && key.Line < first.Line {
		at = d.lineStart(key.Line + 1)
	}
	return &edit{from: at, to: at, text: d.block(keys, value, first.Column-1)}
}

// fill gives the empty annotations of meta their first entry.
func (d *document) fill(meta, noteKey, notes *yaml.Node, key, value string) (*edit, error) {
	from, to, err := d.span(noteKey, notes)
	if err != nil {
		return nil, err
	}
	if meta.Style&yaml.FlowStyle != 0 {
		return &edit{from: from, to: to, text: " {" + flow([]string{key}, value) + "}"}, nil
	}
	below := strings.TrimRight(d.block([]string{key}, value, noteKey.Column+1), "\r\n")
	if from == to {
		// Nothing is written behind the colon; a comment may be.
		at := d.lineStart(noteKey.Line + 1)
		return &edit{from: at, to: at, text: d.block([]string{key}, value, noteKey.Column+1)}, nil
	}
	return &edit{from: from, to: to, text: d.newline() + below}, nil
}

// replace puts value in place of a scalar.
func (d *document) replace(key, old *yaml.Node, value string, inFlow bool) (*edit, error) {
	from, to, err := d.span(key, old)
	if err != nil {
		return nil, err
	}
	if inFlow {
		value = `"` + value + `"`
	}
	if from > 0 && d.text[from-1] == ':' {
		value = " " + value
	}
	if to > from && d.text[to-1] == '\n' {
		value += d.newline()
	}
	return &edit{from: from, to: to, text: value}, nil
}

// span returns where the text of a scalar, an alias or an empty map is.
func (d *document) span(key, n *yaml.Node) (from, to int, err error) {
	from = d.offset(n)
	rest := d.text[from:]
	switch {
	case n.Kind == yaml.AliasNode:
		return from, from + 1 + len(n.Value), nil
	case n.Kind == yaml.MappingNode && len(n.Content) == 0 && bytes.HasPrefix(rest, []byte("{")):
		if end := bytes.IndexByte(rest, '}'); end > 0 && len(bytes.TrimSpace(rest[1:end])) == 0 {
			return from, from + end + 1, nil
		}
	case n.Kind != yaml.ScalarNode || n.Anchor != "":
	case n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0:
		if end := closingQuote(rest); end > 0 {
			return from, from + end, nil
		}
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return from, d.blockEnd(n.Line+1, key.Column), nil
	case n.Value == "":
		return from, from, nil
	case bytes.HasPrefix(rest, []byte(n.Value)):
		return from, from + len(n.Value), nil
	}
	return 0, 0, &Finding{
		File: d.file, Line: d.line + n.Line - 1, Field: key.Value,
		Text: "cannot be replaced in the text; write it in one line, without an anchor",
	}
}

// closingQuote returns the length of the quoted scalar that text begins with, 0 when it does not end.
func closingQuote(text []byte) int {
	quote := text[0]
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '\\' && quote == '"':
			i++
		case text[i] != quote:
		case quote == '\'' && i+1 < len(text) && text[i+1] == quote:
			i++
		default:
			return i + 1
		}
	}
	return 0
}

// blockEnd returns the start of the first line from number on that is indented less than or as much as column.
func (d *document) blockEnd(number, column int) int {
	for at := d.lineStart(number); at < len(d.text); number++ {
		next := d.lineStart(number + 1)
		line := bytes.TrimRight(d.text[at:next], " \r\n")
		if len(line) > 0 && len(line)-len(bytes.TrimLeft(line, " ")) < column {
			return at
		}
		at = next
	}
	return len(d.text)
}

// block writes nested keys as lines.
func (d *document) block(keys []string, value string, indent int) string {
	var b strings.Builder
	for i, key := range keys {
		b.WriteString(strings.Repeat(" ", indent+2*i) + key + ":")
		if i == len(keys)-1 {
			b.WriteString(" " + value)
		}
		b.WriteString(d.newline())
	}
	return b.String()
}

func flow(keys []string, value string) string {
	text := fmt.Sprintf("%q: %q", keys[len(keys)-1], value)
	for i := len(keys) - 2; i >= 0; i-- {
		text = fmt.Sprintf("%q: {%s}", keys[i], text)
	}
	return text
}

// newline returns the file's own line end.
func (d *document) newline() string {
	if i := bytes.IndexByte(d.text, '\n'); i > 0 && d.text[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// lineStart returns where a line of the document begins, or the end of the text.
func (d *document) lineStart(number int) int {
	at := 0
	for range number - 1 {
		n := bytes.IndexByte(d.text[at:], '\n')
		if n < 0 {
			return len(d.text)
		}
		at += n + 1
	}
	return at
}

// offset returns where a node begins. Columns count characters.
func (d *document) offset(n *yaml.Node) int {
	at := d.lineStart(n.Line)
	for range n.Column - 1 {
		if at >= len(d.text) {
			return len(d.text)
		}
		_, size := utf8.DecodeRune(d.text[at:])
		at += size
	}
	return at
}
