// SPDX-License-Identifier: Apache-2.0

package images

import (
	"errors"
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ParsePlatform reads "os/architecture[/variant]", or an architecture alone, which means Linux.
func ParsePlatform(s string) (ocispec.Platform, error) {
	parts := strings.Split(s, "/")
	for _, p := range parts {
		if p == "" || strings.ContainsAny(p, " \t\n:@") {
			return ocispec.Platform{}, fmt.Errorf("parsing platform %q: want os/architecture[/variant]", s)
		}
	}
	switch len(parts) {
	case 1:
		return ocispec.Platform{OS: "linux", Architecture: parts[0]}, nil
	case 2:
		return ocispec.Platform{OS: parts[0], Architecture: parts[1]}, nil
	case 3:
		return ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}, nil
	}
	return ocispec.Platform{}, fmt.Errorf("parsing platform %q: want os/architecture[/variant]", s)
}

func withPlatformDefaults(p ocispec.Platform) ocispec.Platform {
	if p.OS == "" {
		p.OS = "linux"
	}
	if p.Architecture == "" {
		p.Architecture = "amd64"
	}
	return p
}

func platformString(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// plainVariant is the variant that an architecture has when none is written, as runtimes understand it.
func plainVariant(architecture, variant string) string {
	switch {
	case architecture == "arm64" && variant == "v8", architecture == "amd64" && variant == "v1",
		architecture == "arm" && variant == "v7":
		return ""
	}
	return variant
}

// satisfies says whether what an image states of itself is no other platform than want. Fields that minimal builders
// leave empty do not contradict.
func satisfies(have, want ocispec.Platform) bool {
	same := func(have, want string) bool { return have == "" || want == "" || have == want }
	return same(have.OS, want.OS) && same(have.Architecture, want.Architecture) &&
		same(plainVariant(have.Architecture, have.Variant), plainVariant(want.Architecture, want.Variant))
}

// choose picks the entry of an index that a runtime on the platform wanted would pick: the one with exactly its variant,
// else the only one for its architecture. Entries that do not say their platform are asked for it.
func (f *fetcher) choose(entries []ocispec.Descriptor, depth int) (*found, error) {
	var exact, near, unlabelled []ocispec.Descriptor
	var have []string
	for _, e := range entries {
		switch p := e.Platform; {
		case p == nil || p.OS == "" && p.Architecture == "":
			unlabelled = append(unlabelled, e)
		case p.OS != f.want.OS || p.Architecture != f.want.Architecture:
			have = append(have, platformString(*p))
		case plainVariant(p.Architecture, p.Variant) == plainVariant(f.want.Architecture, f.want.Variant):
			exact = append(exact, e)
		default:
			near = append(near, e)
			have = append(have, platformString(*p))
		}
	}
	switch {
	case len(exact) > 0:
		return f.descend(exact[0], depth+1)
	case f.want.Variant == "" && len(near) == 1:
		return f.descend(near[0], depth+1)
	}
	// An index of a layout may hold one unlabelled manifest; its configuration knows the platform.
	for _, e := range unlabelled {
		found, err := f.descend(e, depth+1)
		var other *PlatformError
		if errors.As(err, &other) {
			have = append(have, other.Got...)
			continue
		}
		if errors.Is(err, ErrNotImage) {
			continue
		}
		return found, err
	}
	if len(have) == 0 {
		return nil, fmt.Errorf("%w: the index holds no manifest", ErrNotImage)
	}
	return nil, &PlatformError{Got: have, Want: platformString(f.want)}
}
