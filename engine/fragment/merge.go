// SPDX-License-Identifier: Apache-2.0

package fragment

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"portcullis/engine/policytext"
	"portcullis/internal/strictjson"
)

// Accepted is a fragment with the issuer of the measured policy who vouches for it.
type Accepted struct {
	Document Document
	Issuer   *Issuer
}

// Merge returns the text of the policy that decides: the measured one with what the fragments set, in their order. The rules, and all
// that no fragment sets, stay as they are. What goes beyond an issuer's ceiling is [ErrCeiling].
func Merge(measured []byte, fragments []Accepted) ([]byte, error) {
	p, err := policytext.Split(measured)
	if err != nil || p.Form == policytext.Bare {
		return nil, fmt.Errorf("%w: it is in neither of genpolicy's forms", ErrPolicy)
	}
	data, err := readTree(p.Data)
	if err != nil {
		return nil, err
	}
	m := merger{data: data, measured: map[string][]byte{}}
	if err := m.open(); err != nil {
		return nil, err
	}
	for _, f := range fragments {
		if err := m.apply(f); err != nil {
			return nil, err
		}
	}
	text, err := encode(data)
	if err != nil {
		return nil, err
	}
	return policytext.WithData(measured, text)
}

// tree is an object of JSON, numbers as they are written.
type tree = map[string]any

func readTree(data []byte) (tree, error) {
	var t tree
	if err := strictjson.Tree(data, &t); err != nil {
		return nil, fmt.Errorf("%w: policy_data: %w", ErrPolicy, err)
	}
	return t, nil
}

// merger sets fields in policy_data.
type merger struct {
	data       tree
	containers tree
	caps       tree              // common.capabilities
	measured   map[string][]byte // containers of the measured policy, as JSON
}

func (m *merger) open() error {
	common, ok := m.data["common"].(tree)
	m.containers, _ = m.data["containers"].(tree)
	m.caps, _ = common["capabilities"].(tree)
	if !ok || m.containers == nil || m.caps == nil {
		return fmt.Errorf("%w: policy_data is not in genpolicy's shape", ErrPolicy)
	}
	for name, c := range m.containers {
		text, err := encode(c)
		if err != nil {
			return err
		}
		m.measured[name] = text
	}
	return nil
}

func (m *merger) apply(f Accepted) error {
	for _, name := range slices.Sorted(maps.Keys(f.Document.Containers)) {
		if err := m.part(f.Issuer, name, f.Document.Containers[name]); err != nil {
			return fmt.Errorf("%w: containers.%s: %w", ErrCeiling, name, err)
		}
	}
	return nil
}

// part sets what one part says, within the ceiling.
func (m *merger) part(issuer *Issuer, name string, p *Part) error {
	c, err := m.container(name, p)
	if err != nil {
		return err
	}
	for _, field := range p.fields() {
		may := issuer.grants(name, field, m.measured[name] != nil)
		if may == nil {
			return fmt.Errorf("the issuer may not set %s", field)
		}
		if err := may.bounds(field, p); err != nil {
			return err
		}
		if field == "image" && !pulled(c) {
			return errors.New("the measured policy's image is not one that the guest pulls")
		}
		m.set(c, name, field, p)
	}
	m.containers[name] = c
	return nil
}

// pulled says whether a container's image is pulled in the guest: only such a one is replaced by its name alone.
func pulled(c tree) bool {
	image, _ := c["image"].(tree)
	return image["from"] == "guest-pull"
}

// container is the container to change: that of the policy, or a copy of the one that a new one is like, as it was measured: what
// another issuer has set there is within that one's ceiling alone.
func (m *merger) container(name string, p *Part) (tree, error) {
	if m.measured[name] != nil {
		c, ok := m.containers[name].(tree)
		if !ok || p.Like != "" {
			return nil, errors.New("the measured policy has it, so it is like no other")
		}
		return c, nil
	}
	like := m.measured[p.Like]
	if like == nil || strings.HasPrefix(p.Like, "$") {
		return nil, errors.New("the measured policy has no such container, nor the one that it is like")
	}
	if p.Image == nil {
		return nil, errors.New("a container that the measured policy lacks needs an image")
	}
	return readTree(like)
}

// grants is what lets the issuer set a field; nil if nothing does. A container that the measured policy lacks is granted as a
// whole, and one that it has by its fields.
func (i *Issuer) grants(container, field string, measured bool) *May {
	want := "containers." + container
	if measured {
		want += "." + field
	}
	for k := range i.May {
		if i.May[k].Path == want {
			return &i.May[k]
		}
	}
	return nil
}

// bounds holds a field to the bounds of its grant.
func (m *May) bounds(field string, p *Part) error {
	switch field {
	case "image":
		for _, name := range append([]string{p.Image.Name}, p.Image.Also...) {
			if !slices.ContainsFunc(m.Registries, func(r string) bool { return within(name, r) }) {
				return fmt.Errorf("image %.100q is of none of the registries %q", name, m.Registries)
			}
		}
	case "capabilities":
		for _, set := range p.Capabilities.sets() {
			for _, capability := range set {
				if !slices.Contains(m.Capabilities, capability) {
					return fmt.Errorf("capability %.40q is not one of %q", capability, m.Capabilities)
				}
			}
		}
	case "mounts":
		for destination := range p.Mounts {
			if !slices.Contains(m.Mounts, destination) {
				return fmt.Errorf("mount on %.100q is not one of %q", destination, m.Mounts)
			}
		}
	}
	return nil
}

// within says whether an image's name is below a registry or repository: "registry.example" is not the start of
// "registry.example.org/", nor of "registry.example:5000/", where somebody else may listen.
func within(name, registry string) bool {
	name, _, _ = strings.Cut(name, "@")
	rest, ok := strings.CutPrefix(name, registry)
	if !ok || registry == "" {
		return false
	}
	isTag := strings.HasPrefix(rest, ":") && !strings.Contains(rest, "/")
	return strings.HasSuffix(registry, "/") || rest == "" || strings.HasPrefix(rest, "/") || isTag
}

// set changes the container. A field with an odd type in the measured policy is replaced whole.
func (m *merger) set(c tree, name, field string, p *Part) {
	switch field {
	case "args":
		c["args"], c["arg_matches"] = *p.Args, tree{}
	case "capabilities":
		set := "fragment:" + name
		m.caps[set], c["capabilities"] = p.Capabilities, set
	case "cwd":
		c["cwd"] = *p.Cwd
	case "env":
		c["env"] = p.Env
	case "exec":
		c["exec"] = *p.Exec
	case "image":
		c["image"] = tree{"also": p.Image.Also, "digest": p.Image.Digest, "from": "guest-pull", "layers": []string{}, "source": p.Image.Name}
		oci, _ := c["OCI"].(tree)
		process := any(tree{})
		if oci != nil {
			process = oci["Process"]
		}
		c["OCI"] = tree{"Annotations": tree{"io.kubernetes.cri.image-name": p.Image.Name}, "Process": process}
	case "mounts":
		mounts, ok := c["mounts"].(tree)
		if !ok {
			mounts = tree{}
			c["mounts"] = mounts
		}
		for destination, mount := range p.Mounts {
			mounts[destination] = mount
		}
	}
}
