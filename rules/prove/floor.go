// SPDX-License-Identifier: Apache-2.0

package prove

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"portcullis/engine/fragment"
	"portcullis/rules/policydata"
)

// ErrFloor says that a floor demands what there is not.
var ErrFloor = errors.New("floor is not valid")

// Floor is what an organisation demands of every policy and has proven. Package admission reads it from a file, with what else
// a cluster asks.
type Floor struct {
	Require      []string `toml:"require"`      // names of properties
	Registries   []string `toml:"registries"`   // beginnings of image names, "registry.example.org/"; none: any
	Capabilities []string `toml:"capabilities"` // the most that a container may have, "CAP_CHOWN"; none: any
}

// Properties are those that the floor demands; none if it demands nothing. The error is [ErrFloor].
func (f Floor) Properties() ([]Property, error) {
	var out []Property
	for _, name := range f.Require {
		property, err := ParseProperty(name)
		if err != nil {
			return nil, fmt.Errorf("%w: require: %w", ErrFloor, err)
		}
		out = append(out, property)
	}
	if len(f.Registries) > 0 {
		out = append(out, Property{Name: "images of the floor's registries", Meaning: "Every image is of one of: " + strings.Join(f.Registries, ", "), enforce: func(p *policydata.Policy) {
			pulled(p)
			without(p, func(_ string, c *policydata.Container) bool { return !ofRegistries(c, f.Registries) })
			ungranted(p, "image", func(m fragment.May) bool {
				return slices.ContainsFunc(m.Registries, func(name string) bool { return !beginsWithOne(name, f.Registries) })
			})
		}})
	}
	if len(f.Capabilities) > 0 {
		most := capabilityNames(f.Capabilities)
		out = append(out, Property{Name: "capabilities of the floor", Meaning: "No container has another capability than: " + strings.Join(f.Capabilities, ", "), enforce: func(p *policydata.Policy) {
			without(p, func(_ string, c *policydata.Container) bool { return len(lacking(most, capabilitiesOf(p, c))) > 0 })
			ungranted(p, "capabilities", func(m fragment.May) bool { return len(lacking(most, capabilityNames(m.Capabilities))) > 0 })
		}})
	}
	return out, nil
}

// ofRegistries says whether every name of an image begins so. The sandbox's own image is the guest's.
func ofRegistries(c *policydata.Container, beginnings []string) bool {
	for _, name := range append([]string{c.OCI.Annotations.ImageName, c.Image.Source}, c.Image.Also...) {
		if name == "" || c.Image.Source == "pause" && c.Type == policydata.TypeSandbox {
			continue
		}
		if !beginsWithOne(name, beginnings) {
			return false
		}
	}
	return true
}

func beginsWithOne(name string, beginnings []string) bool {
	return slices.ContainsFunc(beginnings, func(b string) bool { return strings.HasPrefix(name, b) })
}
