// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"portcullis/rules"
	"portcullis/rules/policydata"
	"portcullis/rules/prove"
	"portcullis/rules/review"
	"portcullis/rules/settings"
)

// ErrFloor says that a floor cannot be read.
var ErrFloor = errors.New("the floor cannot be read")

// Floor is what a cluster asks of the policies of its confidential pods.
type Floor struct {
	// RuntimeClasses are the beginnings of the names of runtime classes. Pods of others are not looked at.
	RuntimeClasses []string `toml:"runtime_classes"`
	// Platform is the platform that policies are made for, a name of package settings.
	Platform string `toml:"platform"`
	// OtherRules lets policies in whose rules this program does not hold. What they bind cannot be compared with the pod.
	OtherRules bool `toml:"other_rules"`
	// ImageDigests refuses a policy that does not bind what an image holds.
	ImageDigests bool `toml:"image_digests"`
	// Warnings refuses a policy of which package review warns at this level or a graver one; "" refuses none.
	Warnings review.Level `toml:"warnings"`
	// Requests are the kinds of requests with what a policy has to say to them at least: "checked" or "denied".
	Requests map[string]rules.Stance `toml:"requests"`
	// Floor are the properties that a policy must be proven to have.
	prove.Floor
}

// always holds in every cluster: a policy that says less protects nothing.
var always = map[string]rules.Stance{
	"SetPolicyRequest": rules.Denied, "CreateContainerRequest": rules.Checked, "ExecProcessRequest": rules.Checked,
}

// ParseFloor reads a floor, TOML. One without runtime classes is for proofs alone, see [New]. Errors wrap [ErrFloor].
func ParseFloor(text []byte) (*Floor, error) {
	f := &Floor{Platform: settings.DefaultPlatform}
	meta, err := toml.Decode(string(text), f)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFloor, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return nil, fmt.Errorf("%w: there is no key %s", ErrFloor, unknown[0])
	}
	for _, key := range meta.Keys() { // which the decoder finds in any case
		if name := key.String(); len(key) == 1 && strings.ToLower(name) != name {
			return nil, fmt.Errorf("%w: there is no key %s, do you mean %s?", ErrFloor, name, strings.ToLower(name))
		}
	}
	if err := f.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFloor, err)
	}
	return f, nil
}

// Proven are the properties that a policy must be proven to have.
func (f *Floor) Proven() ([]prove.Property, error) {
	out, err := f.Properties()
	if f.ImageDigests && !slices.Contains(f.Require, byDigest) && err == nil {
		property, err := prove.ParseProperty(byDigest)
		return append(out, property), err
	}
	return out, err
}

const byDigest = "only images by digest"

func (f *Floor) check() error {
	if _, err := f.Proven(); err != nil {
		return err
	}
	if slices.Contains(f.RuntimeClasses, "") {
		return errors.New("runtime_classes has an empty name, with which every pod's begins")
	}
	if !slices.Contains(settings.Platforms(), f.Platform) {
		return fmt.Errorf("platform is %q, want one of %s", f.Platform, strings.Join(settings.Platforms(), ", "))
	}
	if !slices.Contains([]review.Level{"", review.Grave, review.Look, review.Note}, f.Warnings) {
		return fmt.Errorf("warnings is %q, want grave, look or note", f.Warnings)
	}
	for name, stance := range f.Requests {
		known := slices.ContainsFunc(rules.Entries(), func(e rules.Entry) bool { return e.Request == name })
		if !known {
			return fmt.Errorf("requests: the agent has no %s", name)
		}
		if stance != rules.Checked && stance != rules.Denied {
			return fmt.Errorf("requests: %s is %q, want checked or denied", name, stance)
		}
	}
	return nil
}

// Covers says whether pods of a runtime class are judged.
func (f *Floor) Covers(runtimeClass string) bool {
	return slices.ContainsFunc(f.RuntimeClasses, func(prefix string) bool { return strings.HasPrefix(runtimeClass, prefix) })
}

// looser lists where a policy asks less than the floor.
func (f *Floor) looser(s *review.Subject) []string {
	var out []string
	if s.Waives {
		out = append(out, "it has AllowRequestsFailingPolicy, which allows everything")
	}
	for _, a := range s.Answers {
		if want := max(strict(always[a.Request]), strict(f.Requests[a.Request])); strict(a.Stance) < want {
			out = append(out, fmt.Sprintf("%s is %s, the cluster wants it %s", a.Request, a.Stance, stances[want]))
		}
	}
	if f.ImageDigests && s.Data != nil {
		for _, name := range names(s.Data) {
			switch c := s.Data.Containers[name]; {
			case !c.ImageBound():
				out = append(out, fmt.Sprintf("what the image %s of container %s holds is not bound; name it by digest (genpolicy --lock-digests)",
					c.Image.Source, name))
			case c.Image.From == policydata.GuestPull && s.Data.Strict.Image != policydata.Required:
				out = append(out, fmt.Sprintf("the guest may have another image than %s of container %s, as strict.image is %s",
					c.Image.Source, name, s.Data.Strict.Image))
			}
		}
	}
	if f.Warnings == "" {
		return out
	}
	for _, w := range s.Warnings() {
		if grave(w.Level) < grave(f.Warnings) {
			continue
		}
		text := strings.TrimSuffix(w.Text, ".")
		if w.Container != "" {
			text = "container " + review.Called(w.Container) + ": " + text
		}
		out = append(out, text)
	}
	return out
}

// stances in the order of their strictness.
var stances = []rules.Stance{rules.Allowed, rules.Checked, rules.Denied}

// strict is higher for what lets less in; 0 for what is not asked for.
func strict(s rules.Stance) int { return max(0, slices.Index(stances, s)) }

func grave(l review.Level) int {
	return slices.Index([]review.Level{review.Note, review.Look, review.Grave}, l)
}

// names are the containers of a policy but for the sandbox, sorted.
func names(p *policydata.Policy) []string {
	all := slices.Sorted(maps.Keys(p.Containers))
	return slices.DeleteFunc(all, func(name string) bool { return name == policydata.SandboxContainer })
}
