// SPDX-License-Identifier: Apache-2.0

package prove

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"portcullis/rules/policydata"
)

// ErrFloor says that a floor cannot be read.
var ErrFloor = errors.New("floor is not valid")

// Floor is what an organisation demands of every policy.
type Floor struct {
	Require      []string `toml:"require"`      // names of properties
	Registries   []string `toml:"registries"`   // beginnings of image names, "registry.example.org/"; none: any
	Capabilities []string `toml:"capabilities"` // the most that a container may have, "CAP_CHOWN"; none: any
}

// ParseFloor reads a floor and gives the properties that it demands. The error is [ErrFloor].
func ParseFloor(text string) ([]Property, error) {
	var f Floor
	meta, err := toml.Decode(text, &f)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFloor, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return nil, fmt.Errorf("%w: unknown key %s", ErrFloor, unknown[0])
	}
	var out []Property
	for _, name := range f.Require {
		property, err := ParseProperty(name)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFloor, err)
		}
		out = append(out, property)
	}
	if len(f.Registries) > 0 {
		out = append(out, Property{"registries", "Every image is of one of: " + strings.Join(f.Registries, ", "), func(p *policydata.Policy) {
			without(p, func(_ string, c *policydata.Container) bool { return !ofRegistries(c, f.Registries) })
		}})
	}
	if len(f.Capabilities) > 0 {
		most := capabilityNames(f.Capabilities)
		out = append(out, Property{"capabilities", "No container has another capability than: " + strings.Join(f.Capabilities, ", "), func(p *policydata.Policy) {
			without(p, func(_ string, c *policydata.Container) bool { return len(lacking(most, capabilitiesOf(p, c))) > 0 })
		}})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: it demands nothing", ErrFloor)
	}
	return out, nil
}

// ofRegistries says whether every name of an image begins so. The sandbox's own image is the guest's.
func ofRegistries(c *policydata.Container, beginnings []string) bool {
	for _, name := range append([]string{c.OCI.Annotations.ImageName, c.Image.Source}, c.Image.Also...) {
		if name == "" || c.Image.Source == "pause" {
			continue
		}
		if !slices.ContainsFunc(beginnings, func(b string) bool { return strings.HasPrefix(name, b) }) {
			return false
		}
	}
	return true
}
