// SPDX-License-Identifier: Apache-2.0

package fragment

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"portcullis/engine/policytext"
)

// ErrBetween says that the difference of two policies is more than a fragment can set.
var ErrBetween = errors.New("no fragment makes one policy of the other")

// Between is what a fragment has to set so that the measured policy allows what next does. It is for who makes fragments, outside
// the guest. The error is [ErrBetween], and names the first thing that no fragment can set.
func Between(measured, next []byte) (map[string]*Part, error) {
	a, err := readPolicy(measured)
	if err != nil {
		return nil, err
	}
	b, err := readPolicy(next)
	if err != nil {
		return nil, err
	}
	if a.rules != b.rules {
		return nil, fmt.Errorf("%w: their rules differ", ErrBetween)
	}
	for _, key := range keysOf(a.data, b.data) {
		switch key {
		case "containers", "common", "issuers":
			continue
		}
		if !reflect.DeepEqual(a.data[key], b.data[key]) {
			return nil, fmt.Errorf("%w: %s differs", ErrBetween, key)
		}
	}
	for _, key := range keysOf(a.common, b.common) {
		if key != "capabilities" && !reflect.DeepEqual(a.common[key], b.common[key]) {
			return nil, fmt.Errorf("%w: common.%s differs", ErrBetween, key)
		}
	}
	return parts(a, b)
}

// readable is a policy taken apart for comparison.
type readable struct {
	rules                    policytext.Digest
	data, common, containers tree
}

func readPolicy(text []byte) (readable, error) {
	p, err := policytext.Split(text)
	if err != nil {
		return readable{}, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	data, err := readTree(p.Data)
	if err != nil {
		return readable{}, err
	}
	r := readable{rules: p.Digest, data: data}
	common, ok := data["common"].(tree)
	containers, also := data["containers"].(tree)
	if !ok || !also {
		return r, fmt.Errorf("%w: policy_data is not in genpolicy's shape", ErrPolicy)
	}
	r.common, r.containers = common, containers
	return r, nil
}

func keysOf(a, b tree) []string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}

// parts are what differs, container by container.
func parts(a, b readable) (map[string]*Part, error) {
	out := map[string]*Part{}
	for _, name := range keysOf(a.containers, b.containers) {
		next, ok := b.containers[name].(tree)
		if !ok {
			return nil, fmt.Errorf("%w: containers.%s is gone", ErrBetween, name)
		}
		part, err := b.partLike(a, name, next)
		if err != nil {
			return nil, err
		}
		if len(part.fields()) > 0 || part.Like != "" {
			out[name] = part
		}
	}
	return out, nil
}

// partLike is what to set so that a container becomes next: its own, or for one that is new the first that it can be like.
func (b readable) partLike(a readable, name string, next tree) (*Part, error) {
	if old, ok := a.containers[name].(tree); ok {
		part, err := b.part(a, old, next)
		if err != nil {
			err = fmt.Errorf("%w: containers.%s.%w", ErrBetween, name, err)
		}
		return part, err
	}
	for _, like := range slices.Sorted(maps.Keys(a.containers)) {
		old, _ := a.containers[like].(tree)
		if part, err := b.part(a, old, next); err == nil && like != "$sandbox" {
			part.Like = like
			if part.Image == nil {
				part.Image, err = imageOf(next)
			}
			return part, err
		}
	}
	return nil, fmt.Errorf("%w: containers.%s is new, and like none of the measured ones", ErrBetween, name)
}

// part is what differs between two containers. The error begins with the field.
func (b readable) part(a readable, old, next tree) (*Part, error) {
	p := &Part{}
	for _, key := range keysOf(old, next) {
		if key != "capabilities" && reflect.DeepEqual(old[key], next[key]) {
			continue
		}
		if err := p.take(key, old, next); err != nil {
			return nil, err
		}
	}
	before, _ := a.common["capabilities"].(tree)
	after, _ := b.common["capabilities"].(tree)
	was, _ := old["capabilities"].(string)
	is, _ := next["capabilities"].(string)
	if reflect.DeepEqual(before[was], after[is]) {
		p.Capabilities = nil
		return p, nil
	}
	p.Capabilities = &Capabilities{}
	if err := into(after[is], p.Capabilities); err != nil {
		return nil, fmt.Errorf("capabilities: %w", err)
	}
	return p, nil
}

// take sets one field of the part.
func (p *Part) take(key string, old, next tree) (err error) {
	switch key {
	case "capabilities":
	case "args":
		err = into(next[key], &p.Args)
	case "arg_matches":
		if matches, _ := next[key].(tree); len(matches) > 0 {
			return errors.New("arg_matches differs")
		}
		err = into(next["args"], &p.Args)
	case "cwd":
		err = into(next[key], &p.Cwd)
	case "env":
		err = into(next[key], &p.Env)
	case "exec":
		err = into(next[key], &p.Exec)
	case "image", "OCI":
		was, _ := old["OCI"].(tree)
		is, _ := next["OCI"].(tree)
		if !reflect.DeepEqual(was["Process"], is["Process"]) {
			return errors.New("OCI.Process differs")
		}
		p.Image, err = imageOf(next)
	case "mounts":
		err = p.takeMounts(old, next)
	default:
		return fmt.Errorf("%s differs", key)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

func (p *Part) takeMounts(old, next tree) error {
	was, _ := old["mounts"].(tree)
	is, _ := next["mounts"].(tree)
	p.Mounts = map[string]*Mount{}
	for destination := range was {
		if is[destination] == nil {
			return fmt.Errorf("%s is gone", destination)
		}
	}
	for destination, mount := range is {
		if reflect.DeepEqual(was[destination], mount) {
			continue
		}
		m := &Mount{}
		if err := into(mount, m); err != nil {
			return err
		}
		p.Mounts[destination] = m
	}
	return nil
}

// imageOf is the image of a container that the guest pulls by digest.
func imageOf(c tree) (*Image, error) {
	var image struct {
		Also                 []string
		Digest, From, Source string
	}
	if err := again(c["image"], &image); err != nil {
		return nil, err
	}
	if image.From != "guest-pull" || image.Digest == "" {
		return nil, errors.New("it is not one that the guest pulls by digest")
	}
	i := &Image{Name: image.Source, Also: image.Also, Digest: image.Digest}
	return i, i.check()
}

// into reads a value as one of this package's types, none of its fields left out.
func into(v, to any) error {
	text, err := encode(v)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(to)
}

func again(v, to any) error {
	text, err := encode(v)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, to)
}
