// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"
)

// Bounds on one manifest file.
const (
	maxFile      = 16 << 20 // bytes
	maxDocuments = 10000
	maxDepth     = 100 // nested lists, maps and Lists
)

// document is one YAML document of a file.
type document struct {
	file string
	line int // of its first line, 1-based
	from int // offset of text in the file
	text []byte
	root *yaml.Node // its mapping; positions are relative to text
	json []byte     // the same as kubectl would send it
}

// split cuts a file at its document markers and leaves out documents without
// content. A marker ends a document even inside a block scalar, so lines decide.
func split(file string, text []byte) ([]*document, error) {
	if len(text) > maxFile {
		return nil, &Finding{File: file, Text: fmt.Sprintf("the file is larger than %d MiB", maxFile>>20)}
	}
	var docs []*document
	for start, line := 0, 1; start < len(text); {
		end, lines := documentEnd(text, start)
		doc := &document{file: file, line: line, from: start, text: text[start:end]}
		found, err := doc.parse()
		if err != nil {
			return nil, err
		}
		if found {
			docs = append(docs, doc)
		}
		if len(docs) > maxDocuments {
			return nil, &Finding{File: file, Line: line, Text: fmt.Sprintf("the file has more than %d documents", maxDocuments)}
		}
		start, line = end, line+lines
	}
	return docs, nil
}

// documentEnd returns where the document that begins at start ends, and how many lines it has.
func documentEnd(text []byte, start int) (end, lines int) {
	for end = start; end < len(text); {
		rest := text[end:]
		if end > start && isMarker(rest) {
			break
		}
		lines++
		n := bytes.IndexByte(rest, '\n')
		if n < 0 {
			return len(text), lines
		}
		end += n + 1
	}
	return end, lines
}

func isMarker(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	return ok && (len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0)
}

// parse fills root and json. It returns false for a document without content.
func (d *document) parse() (bool, error) {
	text := d.text
	if !bytes.HasSuffix(text, []byte("\n")) {
		text = append(slices.Clip(text), '\n') // as kubectl does: a text that ends the file then ends in one
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var node yaml.Node
	switch err := dec.Decode(&node); {
	case errors.Is(err, io.EOF):
		return false, nil
	case err != nil:
		return false, d.syntax(err)
	}
	root := &node
	if root.Kind == yaml.DocumentNode && len(root.Content) == 1 {
		root = root.Content[0]
	}
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return false, nil
	}
	if root.Kind != yaml.MappingNode {
		return false, d.fault("", "is not an object; a manifest begins with apiVersion and kind")
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return false, d.fault("", "something follows the end of the document; separate documents with ---"+d.template())
	}
	d.root = root
	if depth(root, 0) > maxDepth {
		return false, d.fault("", fmt.Sprintf("is nested more than %d deep", maxDepth))
	}
	if key := duplicate(root); key != nil {
		return false, d.twice(key)
	}
	var err error
	if d.json, err = sigsyaml.YAMLToJSON(text); err != nil {
		return false, d.syntax(err)
	}
	return true, nil
}

// depth returns how deep a node is nested, no further than maxDepth+1. Aliases
// count as what they stand for, which also ends a cycle.
func depth(n *yaml.Node, at int) int {
	if at > maxDepth {
		return at
	}
	if n.Kind == yaml.AliasNode {
		// An alias can multiply content; the JSON conversion bounds that itself.
		return at + 1
	}
	deepest := at
	for _, child := range n.Content {
		deepest = max(deepest, depth(child, at+1))
	}
	return deepest
}

// syntax makes a finding of a YAML error, whose text may begin with a line number relative to the document.
func (d *document) syntax(err error) error {
	text := err.Error()
	text = strings.TrimPrefix(text, "error converting YAML to JSON: ")
	text = strings.TrimPrefix(text, "yaml: ")
	text = strings.TrimPrefix(text, "unmarshal errors:\n  ")
	line := 0
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		number, tail, ok := strings.Cut(rest, ": ")
		if n, err := strconv.Atoi(number); ok && err == nil {
			line, text = n, tail
		}
	}
	text = strings.ReplaceAll(text, "\n", "; ")
	if strings.HasPrefix(text, "invalid map key") {
		text = "a map cannot be a key" // instead of the map as Go prints it
	}
	return &Finding{File: d.file, Line: d.line + max(line, 1) - 1, Text: "is not valid YAML: " + text + d.template()}
}

// template says of a text that is no YAML what it may be.
func (d *document) template() string {
	if !bytes.Contains(d.text, []byte("{{")) {
		return ""
	}
	return "; it looks like a template, which has to be rendered first, as with helm template"
}

// fault makes a finding about a field of the document.
func (d *document) fault(field, text string) *Finding {
	return &Finding{File: d.file, Line: d.lineOf(field), Field: field, Text: text}
}

// lineOf returns the line of the field, or of the nearest field above it that is in the document.
func (d *document) lineOf(field string) int {
	if d.root == nil {
		return d.line
	}
	node := d.root
	if entry := nearest(d.root, field); entry != nil {
		node = entry
	}
	return d.line + node.Line - 1
}

// nearest returns the key or list item that stands for field, or for the last part of it that there is; nil for "".
func nearest(n *yaml.Node, field string) *yaml.Node {
	key, value, rest := step(n, field)
	if value == nil {
		return nil
	}
	if deeper := nearest(value, rest); deeper != nil {
		return deeper
	}
	return key
}

// find returns the node at field, following aliases, or nil.
func find(n *yaml.Node, field string) *yaml.Node {
	for field != "" {
		_, value, rest := step(n, field)
		if value == nil {
			return nil
		}
		n, field = value, rest
	}
	return n
}

// step takes the first part off field: a key of a map, or an index. Keys may
// hold dots, so a part is whatever key of the map fits.
func step(n *yaml.Node, field string) (key, value *yaml.Node, rest string) {
	n = resolve(n)
	if n == nil || field == "" {
		return nil, nil, ""
	}
	if n.Kind == yaml.SequenceNode {
		number, tail, ok := strings.Cut(strings.TrimPrefix(field, "["), "]")
		i, err := strconv.Atoi(number)
		if !ok || err != nil || i < 0 || i >= len(n.Content) {
			return nil, nil, ""
		}
		return n.Content[i], n.Content[i], strings.TrimPrefix(tail, ".")
	}
	if n.Kind != yaml.MappingNode {
		return nil, nil, ""
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		tail, ok := strings.CutPrefix(field, n.Content[i].Value)
		if !ok || n.Content[i].Value == "" {
			continue
		}
		if tail == "" || tail[0] == '[' {
			return n.Content[i], n.Content[i+1], tail
		}
		if tail[0] == '.' {
			return n.Content[i], n.Content[i+1], tail[1:]
		}
	}
	return nil, nil, ""
}

func resolve(n *yaml.Node) *yaml.Node {
	for hops := 0; n != nil && n.Kind == yaml.AliasNode && hops < maxDepth; hops++ {
		n = n.Alias
	}
	return n
}
