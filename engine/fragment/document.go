// SPDX-License-Identifier: Apache-2.0

package fragment

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"portcullis/internal/strictjson"
)

// Version is that of the document described here.
const Version = 1

// Document is what is signed. Its only encoding is that of [Document.JSON]: keys sorted, no white space, no line feed.
type Document struct {
	Containers map[string]*Part `json:"containers"` // by name; at least one
	Feed       string           `json:"feed"`
	SVN        uint64           `json:"svn"`
	Version    int              `json:"version"`
}

// Part is what is set of one container. What is nil stays as it was; what is set replaces all that was there, but for Mounts.
type Part struct {
	Args         *[]string         `json:"args,omitempty"`
	Capabilities *Capabilities     `json:"capabilities,omitempty"`
	Cwd          *string           `json:"cwd,omitempty"`
	Env          *Env              `json:"env,omitempty"`
	Exec         *[][]string       `json:"exec,omitempty"`
	Image        *Image            `json:"image,omitempty"`
	Like         string            `json:"like,omitempty"` // for a container that the measured policy lacks: the one it is like in all else
	Mounts       map[string]*Mount `json:"mounts,omitempty"`
}

// Capabilities are the five sets, as policy_data has them.
type Capabilities struct {
	Ambient     []string
	Bounding    []string
	Effective   []string
	Inheritable []string
	Permitted   []string
}

// Env is a container's environment, as policy_data has it.
type Env struct {
	Fixed     []string          `json:"fixed"`
	Hashes    map[string]string `json:"hashes,omitempty"`
	Optional  map[string]string `json:"optional"`
	Patterns  map[string]string `json:"patterns"`
	Shadowed  []string          `json:"shadowed,omitempty"`
	Templates map[string]string `json:"templates"`
}

// Image is an image that the guest pulls, by digest: Name and each of Also end with @ and Digest.
type Image struct {
	Also   []string `json:"also"`
	Digest string   `json:"digest"`
	Name   string   `json:"name"`
}

// Mount is one mount, by its destination: of a directory of the guest (local) or one that the host shares (shared), whose content the
// host then chooses.
type Mount struct {
	From    string   `json:"from"`
	Options []string `json:"options"`
	Source  string   `json:"source"`
	Type    string   `json:"type_"`
}

// JSON is the document in its one encoding.
func (d Document) JSON() ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	return encode(d)
}

// encode writes one line of JSON without its line feed. The keys of all types here are in the order of their names.
func encode(v any) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDocument, err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// parse reads a document. Since there is one encoding, keys that are unknown, there twice or in another case are refused.
func parse(payload []byte) (Document, error) {
	var d Document
	if err := strictjson.Known(payload, &d); err != nil {
		return d, fmt.Errorf("%w: %.200v", ErrDocument, err)
	}
	again, err := d.JSON()
	if err != nil {
		return d, err
	}
	if !bytes.Equal(again, payload) {
		return d, fmt.Errorf("%w: it is not in its one encoding, with sorted keys and no white space", ErrDocument)
	}
	return d, nil
}

func (d Document) check() error {
	if d.Version != Version {
		return fmt.Errorf("%w: version %d, want %d", ErrDocument, d.Version, Version)
	}
	if err := checkName(d.Feed, maxFeed); err != nil {
		return fmt.Errorf("%w: feed: %w", ErrDocument, err)
	}
	if d.SVN == 0 || len(d.Containers) == 0 {
		return fmt.Errorf("%w: svn is 0 or nothing is set", ErrDocument)
	}
	for name, part := range d.Containers {
		if part == nil || name == "" || strings.ContainsAny(name, "/~.$") {
			return fmt.Errorf("%w: containers[%.40q] is no container", ErrDocument, name)
		}
		if err := part.check(); err != nil {
			return fmt.Errorf("%w: containers[%.40q]: %w", ErrDocument, name, err)
		}
	}
	return nil
}

// check holds a part to the types of policy_data, where nil and an empty list are not the same.
func (p *Part) check() error {
	if len(p.fields()) == 0 {
		return errors.New("nothing is set")
	}
	if err := p.checkProcess(); err != nil {
		return err
	}
	if p.Image != nil {
		if err := p.Image.check(); err != nil {
			return err
		}
	}
	for destination, m := range p.Mounts {
		if err := m.check(destination); err != nil {
			return err
		}
	}
	return nil
}

// checkProcess holds what is set of the process to its types.
func (p *Part) checkProcess() error {
	if p.Args != nil && *p.Args == nil || p.Exec != nil && *p.Exec == nil {
		return errors.New("a list is null")
	}
	if p.Exec != nil {
		for _, command := range *p.Exec {
			if len(command) == 0 {
				return errors.New("exec has an empty command")
			}
		}
	}
	if e := p.Env; e != nil && (e.Fixed == nil || e.Optional == nil || e.Patterns == nil || e.Templates == nil) {
		return errors.New("env lacks one of fixed, optional, patterns, templates")
	}
	if c := p.Capabilities; c != nil {
		for _, set := range c.sets() {
			if set == nil {
				return errors.New("capabilities lacks one of its five sets")
			}
		}
	}
	return nil
}

func (c *Capabilities) sets() [][]string {
	return [][]string{c.Ambient, c.Bounding, c.Effective, c.Inheritable, c.Permitted}
}

// imageName is what an image may be called: host and port, components, a tag, one digest. Within it no reader of names finds another
// registry or repository, as there are no dots alone, users before an @, escapes, or empty components.
var imageName = regexp.MustCompile(`^[0-9A-Za-z]+([._-]+[0-9A-Za-z]+)*(:[0-9]+)?(/[0-9a-z]+([._-]+[0-9a-z]+)*)*(:[0-9A-Za-z_][0-9A-Za-z._-]*)?@sha256:[0-9a-f]{64}$`)

// check demands that every name says what the image holds.
func (i *Image) check() error {
	digits, ok := strings.CutPrefix(i.Digest, "sha256:")
	if !ok || len(digits) != 64 || strings.Trim(digits, "0123456789abcdef") != "" || i.Also == nil {
		return errors.New("image: digest is not sha256: and 64 hexadecimal digits, or also is not there")
	}
	for _, name := range append([]string{i.Name}, i.Also...) {
		if !strings.HasSuffix(name, "@"+i.Digest) || !imageName.MatchString(name) {
			return fmt.Errorf("image: name %.100q is not that of an image with @ and the digest at its end", name)
		}
	}
	return nil
}

// check refuses mounts of anything but directories that are the container's own.
func (m *Mount) check(destination string) error {
	switch {
	case m == nil || m.Options == nil:
		return fmt.Errorf("mounts[%.60q] lacks options", destination)
	case m.From != "local" && m.From != "shared":
		return fmt.Errorf("mounts[%.60q] is from %.20q, want local or shared", destination, m.From)
	case m.Type != "bind" || m.Source == "" || strings.ContainsAny(m.Source, "/\x00") || m.Source == "..":
		return fmt.Errorf("mounts[%.60q] is not of type_ bind with a source of one component", destination)
	}
	return nil
}

// fields are those that the part sets, of [Fields].
func (p *Part) fields() []string {
	var out []string
	for name, set := range map[string]bool{"args": p.Args != nil, "capabilities": p.Capabilities != nil, "cwd": p.Cwd != nil,
		"env": p.Env != nil, "exec": p.Exec != nil, "image": p.Image != nil, "mounts": p.Mounts != nil} {
		if set {
			out = append(out, name)
		}
	}
	return out
}

// ParseDocument reads a document in its one encoding, as [Document.JSON] writes it. The error is [ErrDocument].
func ParseDocument(text []byte) (Document, error) { return parse(text) }
