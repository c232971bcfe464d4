// SPDX-License-Identifier: Apache-2.0

package prove

import (
	"fmt"
	"maps"
	"slices"

	"portcullis/rules/policydata"
	"portcullis/rules/prove/language"
)

// compareDevices: the same devices, and the same devices passed through.
func compareDevices(c *comparison) {
	c.each(func(k container) {
		k.equal("devices", slices.Sorted(slices.Values(k.a.Devices)), slices.Sorted(slices.Values(k.b.Devices)))
		k.equal("vfio.count", k.a.VFIO.Count, k.b.VFIO.Count)
		if k.a.VFIO.Count > 0 || k.b.VFIO.Count > 0 {
			k.equal("vfio.path", k.a.VFIO.Path, k.b.VFIO.Path)
			k.equal("vfio.type", k.a.VFIO.Type, k.b.VFIO.Type)
			k.equal("vfio.annotation", k.a.VFIO.Annotation, k.b.VFIO.Annotation)
		}
	})
}

func compareNamespaces(c *comparison) {
	c.each(func(k container) { k.equal("namespaces", k.a.Namespaces, k.b.Namespaces) })
}

func compareSysctls(c *comparison) {
	c.level("sysctl", c.a.Strict.Sysctl, c.b.Strict.Sysctl, orOptional, c.anyContainer(func(i map[string]any) { linux(i)["Sysctl"] = map[string]any{} })...)
	c.each(func(k container) {
		taken := maps.Clone(k.a.Sysctl.Optional)
		if taken == nil {
			taken = map[string]string{}
		}
		maps.Copy(taken, k.a.Sysctl.Fixed)
		allowed := map[string]string{}
		maps.Copy(allowed, k.b.Sysctl.Optional)
		maps.Copy(allowed, k.b.Sysctl.Fixed)
		for _, key := range slices.Sorted(maps.Keys(allowed)) {
			if want, ok := taken[key]; !ok || want != allowed[key] {
				k.differ(k.at("sysctl["+key+"]"), "is allowed by one only, or with another value",
					k.create(func(i map[string]any) { object(i, "OCI", "Linux", "Sysctl")[key] = allowed[key] }))
			}
		}
		if c.a.Strict.Sysctl == policydata.Optional {
			return
		}
		for _, key := range slices.Sorted(maps.Keys(k.a.Sysctl.Fixed)) {
			if _, sure := k.b.Sysctl.Fixed[key]; !sure {
				k.differ(k.at("sysctl["+key+"]"), "has to be there in one only", k.create(func(i map[string]any) { delete(object(i, "OCI", "Linux", "Sysctl"), key) }))
			}
		}
	})
}

// comparePaths: what is masked and read-only.
func comparePaths(c *comparison) {
	const free = "/of/the/hosts/choice"
	open := c.level("paths", c.a.Strict.Paths, c.b.Strict.Paths, orOptional, c.anyContainer(func(i map[string]any) { add(linux(i), "MaskedPaths", free) })...) &&
		c.a.Strict.Paths == policydata.Optional
	c.each(func(k container) {
		a, b := c.a.Common.Paths[k.a.Paths], c.b.Common.Paths[k.b.Paths]
		leave := func(key, path string) attempt {
			return k.create(func(i map[string]any) {
				for _, list := range []string{"MaskedPaths", "ReadonlyPaths"} {
					drop(linux(i), list, func(item any) bool { return item == path })
				}
				if key != "" {
					add(linux(i), key, path)
				}
			})
		}
		if (repeats(b.Masked) || repeats(b.Readonly)) && !(slices.Equal(a.Masked, b.Masked) && slices.Equal(a.Readonly, b.Readonly)) {
			k.differ("common.paths", "one has a path twice", k.start())
		}
		for _, path := range lacking(b.Masked, a.Masked) {
			k.differ("common.paths.masked", fmt.Sprintf("%s has to be masked in one only", path), leave("", path), leave("ReadonlyPaths", path))
		}
		for _, path := range lacking(slices.Concat(b.Masked, b.Readonly), a.Readonly) {
			k.differ("common.paths.readonly", fmt.Sprintf("%s has to be read-only in one only", path), leave("", path))
		}
		if !open {
			have := language.Union(language.Literals(slices.Concat(a.Masked, a.Readonly)...), k.patterns(a.Optional))
			want := language.Union(language.Literals(slices.Concat(b.Masked, b.Readonly)...), k.patterns(b.Optional))
			k.within("common.paths.optional", have, want, func(path string) []attempt {
				return []attempt{k.create(func(i map[string]any) { add(linux(i), "MaskedPaths", path) }), k.start()}
			})
		}
	})
}
