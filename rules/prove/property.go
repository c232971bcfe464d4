// SPDX-License-Identifier: Apache-2.0

package prove

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"portcullis/engine/fragment"
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
	absent  func(*policydata.Policy) string // which subject the policy has not, so that nothing was to be proven; nil for none
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
		ungranted(p, "exec", anyGrant)
	}},
	{"no stdin", "Nothing is written to the standard input of any process, nor is it closed.", func(p *policydata.Policy, _ []string) {
		p.Requests.WriteStream, p.Requests.CloseStdin, p.Requests.Exec.Stdin = false, false, false
		for _, c := range p.Containers {
			c.Stdin = false
		}
	}},
	{"stdout closed", "What containers print does not reach the host.", func(p *policydata.Policy, _ []string) { p.Requests.ReadStream = false }},
	{"only images by digest", "Every container runs an image whose content the policy fixes, by digest or by dm-verity.", func(p *policydata.Policy, _ []string) {
		pulled(p)
		without(p, func(_ string, c *policydata.Container) bool { return !c.ImageBound() })
	}},
	{"no host-filled mount", "There is no volume into which the host puts files of its choice, tokens and values of the cluster included; " +
		"hosts, hostname, resolv.conf and the termination log do not count.", func(p *policydata.Policy, _ []string) {
		without(p, func(_ string, c *policydata.Container) bool {
			for destination, m := range c.Mounts {
				if !slices.Contains(fixed, destination) && hostFilled(p, m) {
					return true
				}
			}
			return false
		})
		ungranted(p, "mounts", anyGrant)
	}},
	{"no privileged", "No container has CAP_SYS_ADMIN.", func(p *policydata.Policy, _ []string) {
		without(p, func(_ string, c *policydata.Container) bool {
			return slices.Contains(capabilitiesOf(p, c), "SYS_ADMIN")
		})
		ungranted(p, "capabilities", func(m fragment.May) bool { return slices.Contains(capabilityNames(m.Capabilities), "SYS_ADMIN") })
	}},
	{"container NAME cannot see volume V", "Container NAME has no mount of volume V, named as in policy_data or by where it is mounted.", func(p *policydata.Policy, subjects []string) {
		without(p, func(name string, c *policydata.Container) bool {
			return name == subjects[0] && len(mountsNamed(p, c, subjects[1])) > 0
		})
		ungranted(p, "mounts", func(m fragment.May) bool { return strings.HasPrefix(m.Path+".", "containers."+subjects[0]+".") })
	}},
	{"policy cannot change", "No issuer extends this policy by signed fragments, and SetPolicy is denied once this policy rules.", func(p *policydata.Policy, _ []string) {
		p.Requests.Allow = slices.DeleteFunc(slices.Clone(p.Requests.Allow), func(name string) bool { return name == "SetPolicyRequest" })
		p.Issuers = nil
	}},
	{"files of V fixed", "Every file of volume V, named as in policy_data or by where it is mounted, is bound by its digest, and no other is there.", func(p *policydata.Policy, subjects []string) {
		without(p, func(_ string, c *policydata.Container) bool {
			return slices.ContainsFunc(mountsNamed(p, c, subjects[0]), func(m policydata.Mount) bool {
				return m.From != policydata.MountShared || !filesBound(p, m)
			})
		})
		ungranted(p, "mounts", anyGrant)
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
			return k.of(subjects), nil
		}
	}
	return Property{}, fmt.Errorf("%w: %q", ErrProperty, text)
}

// subject is a word of a form in whose place a subject stands.
func subject(word string) bool { return word == "NAME" || word == "V" }

// of is the property with its subjects in their places.
func (k kind) of(subjects []string) Property {
	fill := func(text string) string {
		left := subjects
		var out []string
		for _, word := range strings.Fields(text) {
			bare := strings.TrimRight(word, ",")
			if subject(bare) && len(left) > 0 {
				word, left = left[0]+word[len(bare):], left[1:]
			}
			out = append(out, word)
		}
		return strings.Join(out, " ")
	}
	p := Property{Name: fill(k.form), Meaning: fill(k.meaning), enforce: func(p *policydata.Policy) { k.enforce(p, subjects) }}
	if len(subjects) > 0 {
		p.absent = func(p *policydata.Policy) string { return absentSubject(p, strings.Fields(k.form), subjects) }
	}
	return p
}

// absentSubject says which of the subjects of a form a policy has not.
func absentSubject(p *policydata.Policy, form, subjects []string) string {
	for _, word := range form {
		if !subject(word) {
			continue
		}
		name := subjects[0]
		subjects = subjects[1:]
		mounted := slices.ContainsFunc(slices.Collect(maps.Values(p.Containers)), func(c *policydata.Container) bool { return len(mountsNamed(p, c, name)) > 0 })
		if word == "NAME" && p.Containers[name] == nil {
			return "there is no container " + name
		}
		if word == "V" && !mounted {
			return "no container has a volume " + name
		}
	}
	return ""
}

func match(form, words []string) (subjects []string, ok bool) {
	if len(form) != len(words) {
		return nil, false
	}
	for i, word := range form {
		switch {
		case subject(word):
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
	enforced := &Policy{Data: data, compiler: p.compiler}
	defer enforced.Close()
	r, err := p.Within(ctx, enforced, policy)
	if err == nil && property.absent != nil {
		r.Note = property.absent(policy.Data)
	}
	return r, err
}

// Properties are those that a policy is proven to have, with its volumes for subjects: which files are fixed, and which containers
// cannot see a volume that others have.
func (p *Prover) Properties(ctx context.Context, policy *Policy) ([]Property, error) {
	var out []Property
	for _, property := range asked(policy.Data) {
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

// asked are the properties without a subject, and those of the policy's own volumes.
func asked(p *policydata.Policy) []Property {
	var out []Property
	for _, k := range kinds {
		switch words := strings.Fields(k.form); {
		case !slices.ContainsFunc(words, subject):
			out = append(out, k.of(nil))
		case slices.Contains(words, "NAME"):
			for _, volume := range volumes(p) {
				for _, name := range slices.Sorted(maps.Keys(p.Containers)) {
					if name != policydata.SandboxContainer && len(mountsNamed(p, p.Containers[name], volume)) == 0 {
						out = append(out, k.of([]string{name, volume}))
					}
				}
			}
		default:
			for _, volume := range volumes(p) {
				out = append(out, k.of([]string{volume}))
			}
		}
	}
	return out
}

// volumes are the names of the pod's volumes, without what every container gets.
func volumes(p *policydata.Policy) []string {
	var out []string
	for _, c := range p.Containers {
		for destination, m := range c.Mounts {
			if m.From != policydata.MountExact && m.Source != "" && !slices.Contains(fixed, destination) {
				out = append(out, m.Source)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
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

// ungranted takes from issuers what a condition holds for of what they may set in a field of a container, or in a container of
// their own.
func ungranted(p *policydata.Policy, field string, condition func(fragment.May) bool) {
	for i := range p.Issuers {
		p.Issuers[i].May = slices.DeleteFunc(p.Issuers[i].May, func(m fragment.May) bool {
			return (strings.HasSuffix(m.Path, "."+field) || strings.Count(m.Path, ".") == 1) && condition(m)
		})
	}
}

func anyGrant(fragment.May) bool { return true }

func capabilitiesOf(p *policydata.Policy, c *policydata.Container) []string {
	sets := p.Common.Capabilities[c.Capabilities]
	return capabilityNames(slices.Concat(sets.Ambient, sets.Bounding, sets.Effective, sets.Inheritable, sets.Permitted))
}

// mountsNamed are the mounts of a container of one volume: of that name, or of what is mounted there in any container.
func mountsNamed(p *policydata.Policy, c *policydata.Container, name string) []policydata.Mount {
	sources := []string{name}
	for _, other := range p.Containers {
		if m, ok := other.Mounts[name]; ok && isVolume(m) {
			sources = append(sources, m.Source)
		}
	}
	var out []policydata.Mount
	for destination, m := range c.Mounts {
		if destination == name || isVolume(m) && (slices.Contains(sources, m.Source) || m.From == policydata.MountExact && path.Base(m.Source) == name) {
			out = append(out, m)
		}
	}
	return out
}

// isVolume says whether a mount is of a volume: an exact one is where its source is a directory, which a volume in memory has its
// name from.
func isVolume(m policydata.Mount) bool {
	return m.From != policydata.MountExact || strings.HasPrefix(m.Source, "/")
}

// hostFilled says whether the host chooses files of a mount: by sharing them or copying them there.
func hostFilled(p *policydata.Policy, m policydata.Mount) bool {
	if m.From == policydata.MountExact {
		return slices.ContainsFunc(p.Common.SharedDirs, func(dir string) bool { return strings.HasPrefix(path.Clean(m.Source)+"/", dir+"/") })
	}
	return m.From == policydata.MountShared && !filesBound(p, m)
}

// filesBound says whether the policy fixes the files of a mount: not where it takes mounts in part, and so does not ask for them.
func filesBound(p *policydata.Policy, m policydata.Mount) bool {
	return m.Contents.Bound() && p.Strict.Mounts != policydata.Optional
}

// pulled holds the guest to the images that the policy names, where it pulls any.
func pulled(p *policydata.Policy) {
	for _, c := range p.Containers {
		if c.Image.From == policydata.GuestPull {
			p.Strict.Image = policydata.Required
		}
	}
}
