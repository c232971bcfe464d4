// SPDX-License-Identifier: Apache-2.0

// Package narrow says whether one policy can be seen, by its policy_data alone, to allow no more than another.
//
// It is what a guest can decide of package prove: both policies have the same known rules, and differ only in values of which it
// is known that less of them, or a stricter word, allows less. Everything else is refused, also where a proof would succeed. A
// test holds each of its answers against a proof.
package narrow

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"portcullis/engine/fragment"
	"portcullis/engine/policytext"
	"portcullis/internal/strictjson"
)

// ErrNotNarrower says that it cannot be seen that a policy allows no more; it may or may not.
var ErrNotNarrower = errors.New("it cannot be shown that the policy allows no more than the one in force")

// kind is how a value may differ.
type kind int

const (
	fewerItems kind = iota + 1 // a list without some of its items
	fewerKeys                  // an object without some of its members
	moreItems                  // a list of what is forbidden
	onlyFalse                  // true may become false
)

// narrowings are the fields of policy_data that may differ, * for any name. All others are compared whole, names of variables among
// them: one that is known is not taken for a service's, so that with less of them more can be allowed.
var narrowings = map[string]kind{
	"containers":                            fewerKeys,
	"containers.*.exec":                     fewerItems,
	"containers.*.other_users":              fewerItems,
	"containers.*.image.also":               fewerItems,
	"containers.*.annotations.optional":     fewerKeys,
	"containers.*.annotations.patterns":     fewerKeys,
	"containers.*.sysctl.optional":          fewerKeys,
	"containers.*.stdin":                    onlyFalse,
	"common.apparmor":                       fewerItems,
	"common.env.whole":                      fewerItems,
	"common.annotations.keys":               fewerKeys,
	"common.annotations.patterns":           fewerKeys,
	"common.oci_versions":                   fewerItems,
	"requests.allow":                        fewerItems,
	"requests.close_stdin":                  onlyFalse,
	"requests.copy_file":                    fewerItems,
	"requests.exec.commands":                fewerItems,
	"requests.exec.joined":                  fewerItems,
	"requests.exec.stdin":                   onlyFalse,
	"requests.exec.terminal":                onlyFalse,
	"requests.get_diagnostic_data":          onlyFalse,
	"requests.update_ephemeral_mounts":      onlyFalse,
	"requests.write_stream":                 onlyFalse,
	"requests.arp.forbidden_addresses":      moreItems,
	"requests.arp.forbidden_devices":        moreItems,
	"requests.interface.forbidden_names":    moreItems,
	"requests.routes.forbidden_devices":     moreItems,
	"requests.routes.forbidden_sources":     moreItems,
	"requests.interface.forbidden_hw_addrs": moreItems,
}

// Check is nil if next allows no more than current, both with the rules of that digest. The error is [ErrNotNarrower] and names the
// first value that it stands in the way of.
func Check(current, next []byte, rules policytext.Digest) error {
	a, err := read(current, rules)
	if err != nil {
		return fmt.Errorf("%w: the policy in force: %w", ErrNotNarrower, err)
	}
	b, err := read(next, rules)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotNarrower, err)
	}
	mayUpdate, err := issuers(current, next)
	if err == nil {
		err = gone(a, b, mayUpdate)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotNarrower, err)
	}
	delete(a, "issuers")
	delete(b, "issuers")
	if err := compare("", a, b); err != nil {
		return fmt.Errorf("%w: %w", ErrNotNarrower, err)
	}
	return nil
}

func read(text []byte, rules policytext.Digest) (map[string]any, error) {
	p, err := policytext.Split(text)
	if err != nil {
		return nil, err
	}
	if p.Form == policytext.Bare || p.Digest != rules {
		return nil, errors.New("its rules are not those that this guest can compare policies of")
	}
	var data map[string]any
	return data, strictjson.Tree(p.Data, &data)
}

// issuers are those of next, each of whom must have been able to do so much before.
func issuers(current, next []byte) ([]fragment.Issuer, error) {
	a, err := fragment.Issuers(current)
	if err != nil {
		return nil, err
	}
	b, err := fragment.Issuers(next)
	if err != nil {
		return nil, err
	}
	for i := range b {
		if !slices.ContainsFunc(a, b[i].Within) {
			return nil, fmt.Errorf("issuer %s may set more", b[i].Line())
		}
	}
	return b, nil
}

// gone refuses containers that are missing, and of which others have depended: one that waits keeps what it waits for from
// running again, one with known contents keeps files of that name as they are, one with a mount below another keeps links away
// from there. A name that is free may be an issuer's to use.
func gone(a, b map[string]any, issuers []fragment.Issuer) error {
	before, _ := a["containers"].(map[string]any)
	after, _ := b["containers"].(map[string]any)
	for name, c := range before {
		if _, kept := after[name]; kept {
			continue
		}
		if a["order"] != "free" {
			return fmt.Errorf("containers.%s is gone, and the order of containers is enforced", name)
		}
		if slices.ContainsFunc(issuers, func(i fragment.Issuer) bool { return i.MayMake(name) }) {
			return fmt.Errorf("containers.%s is gone, and an issuer may make another", name)
		}
		container, _ := c.(map[string]any)
		mounts, _ := container["mounts"].(map[string]any)
		for destination, m := range mounts {
			if mount, ok := m.(map[string]any); !ok || mount["contents"] != nil {
				return fmt.Errorf("containers.%s is gone, and the contents of its mount %s are known", name, destination)
			}
			for other := range mounts {
				if strings.HasPrefix(other, destination+"/") {
					return fmt.Errorf("containers.%s is gone, and its mount %s was below %s", name, other, destination)
				}
			}
		}
	}
	return nil
}

// compare says what of b is not known to allow less than a.
func compare(path string, a, b any) error {
	if reflect.DeepEqual(a, b) {
		return nil
	}
	before, isObject := a.(map[string]any)
	after, alsoObject := b.(map[string]any)
	how := kindOf(path)
	switch {
	case how == fewerItems && subset(b, a), how == moreItems && subset(a, b), how == onlyFalse && a == true && b == false:
		return nil
	case !isObject || !alsoObject:
		return fmt.Errorf("%s differs", path)
	}
	for name, value := range after {
		old, ok := before[name]
		if !ok {
			return fmt.Errorf("%s is new", join(path, name))
		}
		if err := compare(join(path, name), old, value); err != nil {
			return err
		}
	}
	for name := range before {
		if _, kept := after[name]; !kept && how != fewerKeys && kindOf(join(path, name)) != fewerItems { // a list that is not there is empty
			return fmt.Errorf("%s is gone", join(path, name))
		}
	}
	return nil
}

func join(path, name string) string { return strings.TrimPrefix(path+"."+name, ".") }

// kindOf is how the value at a path may differ; 0 for not at all. A name with a dot in it is nobody's.
func kindOf(path string) kind {
	if how, ok := narrowings[path]; ok {
		return how
	}
	words := strings.Split(path, ".")
	if len(words) > 2 && words[0] == "containers" {
		words[1] = "*"
	}
	return narrowings[strings.Join(words, ".")]
}

// subset says whether some and all are lists, and each item of some is in all.
func subset(some, all any) bool {
	x, ok := some.([]any)
	y, also := all.([]any)
	return ok && also && !slices.ContainsFunc(x, func(item any) bool {
		return !slices.ContainsFunc(y, func(other any) bool { return reflect.DeepEqual(item, other) })
	})
}
