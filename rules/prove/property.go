// SPDX-License-Identifier: Apache-2.0

package prove

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"portcullis/rules"
	"portcullis/rules/policydata"
)

// ErrProperty says that a text names no property.
var ErrProperty = errors.New("no such property")

// Property is something that a policy may guarantee. A policy has it if it allows nothing that it would not allow with the property
// enforced; that is proven or refuted as any other comparison is.
type Property struct {
	Name    string // "no exec"; for those with a subject, in its place: "container web cannot see volume data"
	Meaning string // one sentence
	enforce func(*policydata.Policy)
}

// kind is a property, or a form of several: a name with words in capitals where a subject stands.
type kind struct {
	form, meaning string
	enforce       func(p *policydata.Policy, subjects []string)
}

var kinds = []kind{
	{"no exec", "No command is executed in a container, probes and hooks included.", func(p *policydata.Policy, _ []string) {
		p.Requests.Exec.Commands, p.Requests.Exec.Joined = nil, nil
		for _, c := range p.Containers {
			c.Exec = nil
		}
	}},
	{"no stdin", "Nothing is written to the standard input of any process, nor is it closed.", func(p *policydata.Policy, _ []string) {
		p.Requests.WriteStream, p.Requests.CloseStdin, p.Requests.Exec.Stdin = false, false, false
		for _, c := range p.Containers {
			c.Stdin = false
		}
	}},
	{"stdout closed", "What containers print does not reach the host.", func(p *policydata.Policy, _ []string) { p.Requests.ReadStream = false }},
	{"only images by digest", "Every container runs an image whose content the policy fixes, by digest or by dm-verity.", func(p *policydata.Policy, _ []string) {
		without(p, func(_ string, c *policydata.Container) bool { return !c.Image.Bound() })
	}},
	{"no host-filled mount", "There is no volume into which the host puts files of its choice, tokens and values of the cluster included; " +
		"hosts, hostname, resolv.conf and the termination log do not count.", func(p *policydata.Policy, _ []string) {
		without(p, func(_ string, c *policydata.Container) bool {
			for destination, m := range c.Mounts {
				if m.From == policydata.MountShared && !slices.Contains(fixed, destination) && !m.Contents.Bound() {
					return true
				}
			}
			return false
		})
	}},
	{"no privileged", "No container has CAP_SYS_ADMIN.", func(p *policydata.Policy, _ []string) {
		without(p, func(_ string, c *policydata.Container) bool {
			return slices.Contains(capabilitiesOf(p, c), "SYS_ADMIN")
		})
	}},
	{"container NAME cannot see volume V", "The container has no mount of the volume, named as in policy_data or by where it is mounted.", func(p *policydata.Policy, subjects []string) {
		without(p, func(name string, c *policydata.Container) bool {
			return name == subjects[0] && len(mountsNamed(c, subjects[1])) > 0
		})
	}},
	{"policy cannot change", "SetPolicy is denied once this policy rules.", func(p *policydata.Policy, _ []string) {
		p.Requests.Allow = slices.DeleteFunc(slices.Clone(p.Requests.Allow), func(name string) bool { return name == "SetPolicyRequest" })
	}},
	{"files of V fixed", "Every file of the volume, named as in policy_data or by where it is mounted, is bound by its digest, and no other is there.", func(p *policydata.Policy, subjects []string) {
		without(p, func(_ string, c *policydata.Container) bool {
			return slices.ContainsFunc(mountsNamed(c, subjects[0]), func(m policydata.Mount) bool {
				return m.From != policydata.MountShared || !m.Contents.Bound()
			})
		})
	}},
	{"order enforced", "Containers start in the manifest's order, each after those it waits for.", func(p *policydata.Policy, _ []string) { p.Order = policydata.OrderEnforced }},
}

// Forms are the names of all properties with their meanings; words in capitals stand for a subject.
func Forms() [][2]string {
	var out [][2]string
	for _, k := range kinds {
		out = append(out, [2]string{k.form, k.meaning})
	}
	return out
}

// ParseProperty finds a property by its name. The error is [ErrProperty].
func ParseProperty(text string) (Property, error) {
	words := strings.Fields(text)
	for _, k := range kinds {
		if subjects, ok := match(strings.Fields(k.form), words); ok {
			return Property{strings.Join(words, " "), k.meaning, func(p *policydata.Policy) { k.enforce(p, subjects) }}, nil
		}
	}
	return Property{}, fmt.Errorf("%w: %q", ErrProperty, text)
}

func match(form, words []string) (subjects []string, ok bool) {
	if len(form) != len(words) {
		return nil, false
	}
	for i, word := range form {
		switch {
		case word == "NAME" || word == "V":
			subjects = append(subjects, words[i])
		case word != words[i]:
			return nil, false
		}
	}
	return subjects, true
}

// Holds says whether a policy has a property. The witness of a refutation is allowed by the policy and breaks the property.
func (p *Prover) Holds(ctx context.Context, policy *Policy, property Property) (*Result, error) {
	data, err := copyOf(policy.Data)
	if err != nil {
		return nil, fmt.Errorf("prove %q: %w", property.Name, err)
	}
	property.enforce(data)
	text, err := data.Compact(rules.Text())
	if err != nil {
		return nil, fmt.Errorf("prove %q: %w", property.Name, err)
	}
	enforced, err := p.Load(ctx, text)
	if err != nil {
		return nil, fmt.Errorf("prove %q: %w", property.Name, err)
	}
	defer enforced.Close()
	return p.Within(ctx, enforced, policy)
}

// Properties are those, of all without a subject, that a policy is proven to have.
func (p *Prover) Properties(ctx context.Context, policy *Policy) ([]Property, error) {
	var out []Property
	for _, k := range kinds {
		property, err := ParseProperty(k.form)
		if err != nil || strings.ContainsAny(k.form, "NV") {
			continue
		}
		r, err := p.Holds(ctx, policy, property)
		if err != nil {
			return nil, err
		}
		if r.Verdict == Proven {
			out = append(out, property)
		}
	}
	return out, nil
}

func copyOf(p *policydata.Policy) (*policydata.Policy, error) {
	text, err := p.JSON()
	if err != nil {
		return nil, err
	}
	out, _, err := policydata.Parse(text)
	return out, err
}

// without takes away the containers that a condition holds for, and what waits for them waits no more.
func without(p *policydata.Policy, condition func(name string, c *policydata.Container) bool) {
	for name, c := range maps.Clone(p.Containers) {
		if !condition(name, c) {
			continue
		}
		delete(p.Containers, name)
		for _, other := range p.Containers {
			other.After = slices.DeleteFunc(other.After, func(step policydata.After) bool { return step.Container == name })
		}
	}
}

func capabilitiesOf(p *policydata.Policy, c *policydata.Container) []string {
	sets := p.Common.Capabilities[c.Capabilities]
	return capabilityNames(slices.Concat(sets.Ambient, sets.Bounding, sets.Effective, sets.Inheritable, sets.Permitted))
}

func mountsNamed(c *policydata.Container, name string) []policydata.Mount {
	var out []policydata.Mount
	for destination, m := range c.Mounts {
		if destination == name || m.Source == name && m.From != policydata.MountExact {
			out = append(out, m)
		}
	}
	return out
}
