// SPDX-License-Identifier: Apache-2.0

package prove

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"portcullis/internal/rulestest"
	"portcullis/rules/policydata"
	"portcullis/rules/prove/language"
)

// compareImage: the names under which the image may be asked for and pulled.
func compareImage(c *comparison) {
	c.level("image", c.a.Strict.Image, c.b.Strict.Image, allLevels, c.anyContainer(func(i map[string]any) {
		drop(i, "storages", isPull)
	})...)
	c.each(func(k container) {
		k.equal("image.from", k.a.Image.From == policydata.GuestPull, k.b.Image.From == policydata.GuestPull)
		if c.a.Strict.Image == policydata.Free {
			return
		}
		// A name that annotations take will do for the image, even where it is fixed for the annotation as well.
		a, b := annotationSet{&k.a.Annotations, c.a}, annotationSet{&k.b.Annotations, c.b}
		k.within(k.at("annotations["+imageName+"]"), k.notFixed(a, imageName), k.notFixed(b, imageName), func(example string) []attempt {
			return []attempt{k.create(func(i map[string]any) { annotations(i)[imageName] = example })}
		})
		if c.a.Strict.Image != policydata.Optional && k.a.OCI.Annotations.ImageName != "" && k.b.OCI.Annotations.ImageName == "" {
			k.differ(k.at("OCI.Annotations"), "an image without a name is allowed by one only", k.create(func(i map[string]any) {
				delete(annotations(i), imageName)
			}))
		}
		for _, name := range lacking(append(slices.Clone(k.a.Image.Also), k.a.OCI.Annotations.ImageName), append(slices.Clone(k.b.Image.Also), k.b.OCI.Annotations.ImageName)) {
			k.differ(k.at("OCI.Annotations"), fmt.Sprintf("%q is allowed by one only", name), k.create(func(i map[string]any) {
				if name == "" {
					delete(annotations(i), imageName)
				} else {
					annotations(i)[imageName] = name
				}
			}))
		}
		if k.b.Image.From != policydata.GuestPull {
			return
		}
		for _, source := range lacking(append(slices.Clone(k.a.Image.Also), k.a.Image.Source), append(slices.Clone(k.b.Image.Also), k.b.Image.Source)) {
			k.differ(k.at("image.source"), fmt.Sprintf("%q is pulled by one only", source), k.create(func(i map[string]any) {
				for _, s := range list(i, "storages") {
					if isPull(s) {
						s.(map[string]any)["source"] = source
					}
				}
			}))
		}
	})
}

func isPull(s any) bool {
	storage, ok := s.(map[string]any)
	return ok && storage["driver"] == "image_guest_pull"
}

// compareStorages: the same storages, in any order.
func compareStorages(c *comparison) {
	c.each(func(k container) {
		k.equal("storages", storageTexts(inAnyOrder(k.a.Storages)), storageTexts(inAnyOrder(k.b.Storages)))
	})
	start := c.anyContainer(nil)
	if c.a.Common.StorageDir != c.b.Common.StorageDir {
		c.differ("common.storage_dir", "differs", start...)
	}
	for _, dir := range lacking(c.a.Common.SharedDirs, c.b.Common.SharedDirs) {
		c.differ("common.shared_dirs", fmt.Sprintf("%s is in one only", dir), append(start, c.sharedFrom(func(source string) string {
			return strings.Replace(source, c.b.Common.SharedDirs[0], dir, 1)
		})...)...)
	}
	// More of a's take nothing away, but for storages that are not looked at in one of them or stand for a directory of the
	// guest, and for two in one of which the other lies.
	for _, dir := range lacking(c.b.Common.SharedDirs, c.a.Common.SharedDirs) {
		local := c.anyStorage(func(s policydata.Storage) bool {
			return s.Driver == "local" && strings.HasPrefix(s.MountPoint, dir+"/")
		})
		watched := strings.HasSuffix(dir, "/watchable") && c.anyStorage(func(s policydata.Storage) bool { return s.Driver == "watchable-bind" })
		if local || watched || slices.ContainsFunc(c.a.Common.SharedDirs, inner.MatchString) {
			c.differ("common.shared_dirs", fmt.Sprintf("%s is in one only, and decides what else is looked at", dir), start...)
		}
	}
}

// inner matches a directory that may lie in another's part for one pod or container.
var inner = regexp.MustCompile(`/rootfs/local|/[0-9a-f]{64}-`)

// anyStorage says whether a storage of b's containers is such a one.
func (c *comparison) anyStorage(such func(policydata.Storage) bool) bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(c.b.Containers)), func(k *policydata.Container) bool {
		return slices.ContainsFunc(k.Storages, such)
	})
}

// inAnyOrder are storages with their options sorted.
func inAnyOrder(storages []policydata.Storage) []policydata.Storage {
	out := slices.Clone(storages)
	for i, s := range out {
		out[i].Options, out[i].DriverOptions = slices.Sorted(slices.Values(s.Options)), slices.Sorted(slices.Values(s.DriverOptions))
	}
	return out
}

// storageTexts are storages as JSON, sorted.
func storageTexts(storages []policydata.Storage) []string {
	out := make([]string, len(storages))
	for i, s := range storages {
		text, err := json.Marshal(s)
		if err != nil {
			panic(err) // it was read from JSON
		}
		out[i] = string(text)
	}
	slices.Sort(out)
	return out
}

// sharedFrom are attempts with the sources of shared mounts changed.
func (c *comparison) sharedFrom(change func(source string) string) []attempt {
	var out []attempt
	c.each(func(k container) {
		for destination, m := range k.b.Mounts {
			if m.From == policydata.MountShared {
				out = append(out, k.create(func(i map[string]any) {
					mount := mountAt(i, destination)
					source, _ := mount["source"].(string)
					mount["source"] = change(source)
				}))
			}
		}
	})
	return out
}

// mountAt is the mount at a destination, an empty one if there is none.
func mountAt(input map[string]any, destination string) map[string]any {
	for _, m := range list(object(input, "OCI"), "Mounts") {
		if m, ok := m.(map[string]any); ok && m["destination"] == destination {
			return m
		}
	}
	return map[string]any{}
}

// isAt says of a mount whether it is at a destination.
func isAt(destination string) func(any) bool {
	return func(m any) bool { return m.(map[string]any)["destination"] == destination }
}

// compareMounts compares mounts by destination.
func compareMounts(c *comparison) {
	optional := c.a.Strict.Mounts == policydata.Optional
	c.level("mounts", c.a.Strict.Mounts, c.b.Strict.Mounts, orOptional, c.anyContainer(func(i map[string]any) { object(i, "OCI")["Mounts"] = []any{} })...)
	c.within("common.shared_sources", c.patterns(c.a.Common.SharedSources), c.patterns(c.b.Common.SharedSources), func(example string) []attempt {
		return c.sharedFrom(func(string) string { return example })
	})
	c.each(func(k container) {
		a, b := mountsOf(c.a, k.a), mountsOf(c.b, k.b)
		k.base()
		for _, destination := range slices.Sorted(maps.Keys(b)) {
			if m, ok := a[destination]; ok {
				k.mount(destination, m, b[destination])
			} else {
				k.differ(k.at("mounts["+destination+"]"), "is in one only", k.start())
			}
		}
		for _, destination := range slices.Sorted(maps.Keys(a)) {
			m, there := b[destination]
			if !optional && !a[destination].MayBeMissing && (!there || m.MayBeMissing || c.b.Strict.Mounts == policydata.Optional) {
				k.differ(k.at("mounts["+destination+"]"), "has to be there in one only", k.create(func(i map[string]any) {
					drop(object(i, "OCI"), "Mounts", isAt(destination))
				}), k.start())
			}
		}
	})
}

// mountsOf are all mounts of a container, by destination.
func mountsOf(p *policydata.Policy, c *policydata.Container) map[string]policydata.Mount {
	out := maps.Clone(c.Mounts)
	if out == nil {
		out = map[string]policydata.Mount{}
	}
	for _, m := range p.Common.Mounts[c.BaseMounts] {
		out[m.Destination] = policydata.Mount{From: policydata.MountExact, Options: m.Options, Source: m.Source, Type: m.Type}
	}
	return out
}

// base compares the mounts of every container beyond what mountsOf keeps of them: either is taken of one that is there twice, in
// two ways.
func (k container) base() {
	a, b := distinct(k.comparison.a.Common.Mounts[k.a.BaseMounts]), distinct(k.comparison.b.Common.Mounts[k.b.BaseMounts])
	if repeats(destinations(a)) || repeats(destinations(b)) {
		for _, m := range b {
			if !slices.ContainsFunc(a, func(other policydata.ExactMount) bool { return same(m, other) }) {
				k.differ(k.at("base_mounts"), fmt.Sprintf("%s is another in one", m.Destination), k.create(func(i map[string]any) {
					drop(object(i, "OCI"), "Mounts", isAt(m.Destination))
					add(object(i, "OCI"), "Mounts", map[string]any{"destination": m.Destination, "options": items(m.Options), "source": m.Source, "type_": m.Type})
				}))
			}
		}
		if len(a) != len(b) {
			k.equal("base_mounts", a, b)
		}
	}
}

// distinct are mounts without those that are there before: the rules take the list for a set.
func distinct(mounts []policydata.ExactMount) []policydata.ExactMount {
	var out []policydata.ExactMount
	for _, m := range mounts {
		if !slices.ContainsFunc(out, func(other policydata.ExactMount) bool { return same(m, other) }) {
			out = append(out, m)
		}
	}
	return out
}

func destinations(mounts []policydata.ExactMount) []string {
	var out []string
	for _, m := range mounts {
		out = append(out, m.Destination)
	}
	return out
}

func (k container) mount(destination string, a, b policydata.Mount) {
	path := k.at("mounts[" + destination + "]")
	set := func(key string, value any) attempt {
		return k.create(func(i map[string]any) { mountAt(i, destination)[key] = value })
	}
	named := a.From == policydata.MountStorage && b.From == policydata.MountStorage && !strings.ContainsAny(a.Source+b.Source, ":") && slices.Equal(usesOf(k.comparison.a, a.Source), usesOf(k.comparison.b, b.Source))
	if a.From != b.From || a.Source != b.Source && !named || a.Type != b.Type {
		k.differ(path, fmt.Sprintf("is %s %s from %q in one and %s %s from %q in the other", a.Type, a.From, a.Source, b.Type, b.From, b.Source), k.start())
	}
	if b.Copied != "" && a.Copied != b.Copied {
		k.differ(path+".copied", "may be copied in one only, or by other names", k.copied(destination, a, b)...)
	}
	most := slices.Concat(a.Options, a.ExtraOptions)
	for _, option := range lacking(most, slices.Concat(b.Options, b.ExtraOptions)) {
		k.differ(path+".options", fmt.Sprintf("%s is allowed by one only", option), set("options", items(append(slices.Clone(b.Options), option))), k.start())
	}
	for _, option := range lacking(b.Options, a.Options) {
		k.differ(path+".options", fmt.Sprintf("%s has to be there in one only", option), k.start())
	}
	if repeats(b.Options) && !slices.Equal(a.Options, b.Options) {
		k.differ(path+".options", "one has an option twice", k.start())
	}
}

// copied are attempts with a directory that may stand for one of the guest's own in b alone.
func (k container) copied(destination string, a, b policydata.Mount) []attempt {
	c := k.comparison
	mine := func(m policydata.Mount) language.Set {
		return c.pattern(strings.ReplaceAll(cmp.Or(m.Copied, "^$"), policydata.ContainerID, rulestest.ID(k.name)))
	}
	source, found, err := mine(b).Minus(mine(a)).Example()
	if err != nil || !found {
		c.err = errors.Join(c.err, err)
		return []attempt{k.start()}
	}
	return []attempt{k.create(func(i map[string]any) {
		m := mountAt(i, destination)
		drop(i, "storages", func(s any) bool { return s.(map[string]any)["mount_point"] == m["source"] })
		m["source"], m["type_"] = source, "bind"
	}), requests(rulestest.CopyFile(source, "Directory"))}
}

// usesOf are the mounts of a volume in block storage, sorted: its name says which these are, and nothing else.
func usesOf(p *policydata.Policy, volume string) []string {
	var out []string
	for name, c := range p.Containers {
		for destination, m := range c.Mounts {
			if m.From == policydata.MountStorage && m.Source == volume {
				out = append(out, fmt.Sprintf("%q:%q", name, destination))
			}
		}
	}
	slices.Sort(out)
	return out
}

func repeats(texts []string) bool {
	return len(slices.Compact(slices.Sorted(slices.Values(texts)))) < len(texts)
}

// comparePropagation: the root may spread mounts as any mount may.
func comparePropagation(c *comparison) {
	c.each(func(k container) {
		for _, option := range lacking(extras(k.a), extras(k.b)) {
			k.differ(k.at("mounts"), fmt.Sprintf("the root may be %s in one only", option),
				k.create(func(i map[string]any) { linux(i)["RootfsPropagation"] = option }))
		}
	})
}

func extras(c *policydata.Container) []string {
	var out []string
	for _, m := range c.Mounts {
		out = append(out, m.ExtraOptions...)
	}
	return out
}

// compareCopyPath: where files may be copied.
func compareCopyPath(c *comparison) {
	valid := c.pattern(`(?s)\A(?:/(?:[^/.][^/]*|\.[^/.][^/]*|\.\.[^/]+))+\z`)
	allowed := language.Intersection(c.patterns(c.b.Requests.CopyFile), valid)
	c.within("requests.copy_file", c.patterns(c.a.Requests.CopyFile), allowed, func(path string) []attempt {
		out := []attempt{requests(rulestest.CopyFile(path, "Regular"))}
		for _, name := range sharedNames(c.b) {
			volume := c.pattern(`/[0-9a-f]{64}-[a-z0-9]{16}-` + regexp.QuoteMeta(name) + `(?:/|\z)`)
			path, found, err := language.Intersection(allowed.Minus(c.patterns(c.a.Requests.CopyFile)), volume).Example()
			if found && err == nil {
				out = append(out, requests(rulestest.CopyFile(path, "Directory")), requests(rulestest.CopyFile(path, "Regular")))
			}
		}
		return out
	})
}
