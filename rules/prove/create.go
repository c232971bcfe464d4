// SPDX-License-Identifier: Apache-2.0

package prove

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"portcullis/internal/rulestest"
	"portcullis/rules/policydata"
	"portcullis/rules/prove/language"
)

// level compares a degree of strictness. Degrees that the rules do not know count as the first.
func (c *comparison) level(path string, a, b policydata.Level, known []policydata.Level, attempts ...attempt) bool {
	if max(slices.Index(known, b), 0) > max(slices.Index(known, a), 0) {
		c.differ("strict."+path, fmt.Sprintf("is %s in one and %s in the other", a, b), attempts...)
		return false
	}
	return true
}

var (
	orOptional = []policydata.Level{policydata.Required, policydata.Optional}
	orFree     = []policydata.Level{policydata.Required, policydata.Free}
	allLevels  = []policydata.Level{policydata.Required, policydata.Optional, policydata.Free}
)

const (
	cri       = "io.kubernetes.cri."
	imageName = cri + "image-name"
)

// compareInstances: how often a container, or the sandbox, may be there.
func compareInstances(c *comparison) {
	attempts := []attempt{requests(plain(emulator(c.b).CreateSandbox()))}
	c.each(func(k container) {
		if k.name != policydata.SandboxContainer { // whose id is the sandbox's
			attempts = append(attempts, attempt{container: k.name, then: func(string) []rulestest.Request { return k.again() }})
		}
	})
	c.level("instances", c.a.Strict.Instances, c.b.Strict.Instances, orFree, attempts...)
}

// again is the creation of the container under another id, with its files.
func (k container) again() []rulestest.Request {
	e := emulator(k.comparison.b)
	var out []rulestest.Request
	for _, r := range append(e.CopyFiles(k.name), e.CreateContainer(k.name)) {
		out = append(out, rename(plain(r), rulestest.ID(k.name), fmt.Sprintf("%064x", 10)))
	}
	return out
}

// compareOrder: what has to have happened before a container is created.
func compareOrder(c *comparison) {
	if c.a.Order != policydata.OrderEnforced {
		return
	}
	if c.b.Order != policydata.OrderEnforced {
		c.each(func(k container) {
			if len(k.a.After) > 0 {
				k.differ(k.at("after"), "the order is enforced in one only", k.start())
			}
			if slices.Contains(waiting(c.a, k.name), policydata.Succeeded) {
				k.differ(k.at("after"), "runs once in one only, as others wait for its end", k.ended())
			}
		})
		return
	}
	c.each(func(k container) {
		for _, step := range lacking(k.b.After, k.a.After) {
			k.differ(k.at("after"), fmt.Sprintf("waits in one only until %s has %s", step.Container, step.State), k.start(),
				attempt{container: k.name, leaveOut: func(name string) bool { return name == step.Container }})
		}
		if !same(waiting(c.a, k.name), waiting(c.b, k.name)) {
			k.differ(k.at("after"), "other containers wait for it in one only", k.start(), k.ended())
		}
	})
}

// ended is an attempt at a container that has ended well and is created again.
func (k container) ended() attempt {
	return attempt{container: k.name, then: func(id string) []rulestest.Request {
		gone := request("RemoveContainerRequest", map[string]any{"container_id": id, "timeout": 0})
		return append([]rulestest.Request{succeeded(id), gone}, k.again()...)
	}}
}

// waiting are the states of a container that others wait for.
func waiting(p *policydata.Policy, name string) []policydata.State {
	var out []policydata.State
	for _, other := range p.Containers {
		for _, step := range other.After {
			if step.Container == name && !slices.Contains(out, step.State) {
				out = append(out, step.State)
			}
		}
	}
	slices.Sort(out)
	return out
}

// compareID: where the root file system lies, and what may be a container's id.
func compareID(c *comparison) {
	c.level("container_id", c.a.Strict.ContainerID, c.b.Strict.ContainerID, orFree, c.anyContainer(func(i map[string]any) { i["exec_id"] = "x" })...)
	c.each(func(k container) { k.equal("readonly_root", k.a.ReadonlyRoot, k.b.ReadonlyRoot) })
	start := c.anyContainer(nil)
	if c.a.Common.RootPath != c.b.Common.RootPath {
		c.differ("common.root_path", "differs", start...)
	}
	for _, path := range lacking(c.a.Common.OtherRootPaths, c.b.Common.OtherRootPaths) {
		c.differ("common.other_root_paths", fmt.Sprintf("%s is in one only", path), c.anyContainer(func(i map[string]any) {
			id, _ := i["container_id"].(string)
			root := strings.ReplaceAll(path, "$(container-id)", id)
			object(i, "OCI", "Root")["Path"] = root
			for _, s := range list(i, "storages") {
				if s := s.(map[string]any); s["driver"] == "image_guest_pull" {
					s["mount_point"] = root
				}
			}
		})...)
	}
	// The rules look at one of the paths that begin as the request's does: another one of a's could take its place.
	for _, path := range lacking(c.b.Common.OtherRootPaths, c.a.Common.OtherRootPaths) {
		for _, other := range append([]string{c.b.Common.RootPath}, c.b.Common.OtherRootPaths...) {
			before, _, _ := strings.Cut(path, "$(container-id)")
			taken, _, _ := strings.Cut(other, "$(container-id)")
			if strings.HasPrefix(before, taken) || strings.HasPrefix(taken, before) {
				c.differ("common.other_root_paths", fmt.Sprintf("%s begins as %s does", path, other), start...)
			}
		}
	}
}

// compareIdentity: name and namespace of the pod, and its host name.
func compareIdentity(c *comparison) {
	if c.a.Common.BundlePath != c.b.Common.BundlePath {
		c.differ("common.bundle_path", "differs", c.anyContainer(nil)...)
	}
	c.within("sandbox.name", c.pattern(c.a.Sandbox.Name), c.pattern(c.b.Sandbox.Name), func(example string) []attempt {
		return c.asPod(func(p *rulestest.Pod) { p.Name = example })
	})
	if c.a.Sandbox.Namespace != "" && c.a.Sandbox.Namespace != c.b.Sandbox.Namespace {
		c.differ("sandbox.namespace", "is bound in one only, or to another", c.asPod(func(p *rulestest.Pod) {
			if c.b.Sandbox.Namespace == "" {
				p.Namespace = "elsewhere"
			}
		})...)
	}
	compareHostname(c)
}

func (c *comparison) asPod(pod func(*rulestest.Pod)) []attempt {
	var out []attempt
	c.each(func(k container) { out = append(out, attempt{container: k.name, pod: pod}) })
	return append(out, attempt{pod: pod})
}

func compareHostname(c *comparison) {
	const path = "sandbox.hostname"
	a, b := c.a.Sandbox.Hostname, c.b.Sandbox.Hostname
	none := c.pattern("^$") // is allowed always
	called := func(name string) []attempt {
		return append(c.anyContainer(func(i map[string]any) { object(i, "OCI")["Hostname"] = name }),
			attempt{change: func(i map[string]any) { i["hostname"] = name }})
	}
	switch {
	case a == "" || a == b:
	case b == "":
		c.differ(path, "is bound in one only", called("elsewhere")...)
	case b == policydata.PodHostname:
		c.differ(path, "is the pod's name in one only", called(rulestest.DefaultPod(c.b).Name)...)
	case a == policydata.PodHostname:
		c.within(path, none, c.pattern(b), called)
	default:
		c.within(path, language.Union(c.pattern(a), none), c.pattern(b), called)
	}
}

// compareAnnotations compares annotations by key.
func compareAnnotations(c *comparison) {
	c.level("annotations", c.a.Strict.Annotations, c.b.Strict.Annotations, allLevels,
		c.anyContainer(func(i map[string]any) { annotations(i)[cri+"unheard-of"] = "x" })...)
	c.each(func(k container) {
		a, b := annotationSet{&k.a.Annotations, c.a}, annotationSet{&k.b.Annotations, c.b}
		for key, want := range a.Fixed {
			got, bound := b.Fixed[key]
			bound = bound && got == want
			if a.policy.Strict.Annotations == policydata.Required && (!bound || b.policy.Strict.Annotations != policydata.Required) {
				k.differ(k.at("annotations["+key+"]"), "has to be there in one only", k.create(func(i map[string]any) { delete(annotations(i), key) }), k.start())
			} else if !bound && (elsewhere(key) || key == imageName) {
				k.differ(k.at("annotations["+key+"]"), "has one value in one only", k.start())
			}
		}
		names := annotationKeys(a, b)
		for _, key := range names {
			k.within(k.at("annotations["+key+"]"), k.annotation(a, key), k.annotation(b, key), func(example string) []attempt {
				return []attempt{k.create(func(i map[string]any) { annotations(i)[key] = example })}
			})
		}
		k.otherKeys(a, b, names)
	})
}

// elsewhere says whether another check decides what value an annotation has, unless the policy fixes it here.
func elsewhere(key string) bool {
	const kata = "io.katacontainers.pkg.oci."
	return slices.Contains([]string{kata + "bundle_path", kata + "container_type", cri + "container-name", cri + "container-type", cri + "sandbox-id",
		cri + "sandbox-log-directory", cri + "sandbox-name", cri + "sandbox-namespace", cri + "sandbox-uid"}, key)
}

// passedThrough matches the keys of the annotations of devices that are passed through.
var passedThrough = regexp.MustCompile(`^cdi\.k8s\.io/vfio[0-9]+$`)

type annotationSet struct {
	*policydata.Annotations
	policy *policydata.Policy
}

func annotationKeys(sets ...annotationSet) []string {
	var out []string
	for _, s := range sets {
		out = slices.Concat(out, slices.Collect(maps.Keys(s.Fixed)), slices.Collect(maps.Keys(s.Optional)),
			slices.Collect(maps.Keys(s.Patterns)), slices.Collect(maps.Keys(s.policy.Common.Annotations.Patterns)))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// annotation are the values that a key may have.
func (k container) annotation(s annotationSet, key string) language.Set {
	if v, ok := s.Fixed[key]; ok {
		return language.Literals(v)
	}
	if elsewhere(key) {
		return language.All()
	}
	return k.notFixed(s, key)
}

// notFixed are the values that the rules take for a key by other means than that it is fixed.
func (k container) notFixed(s annotationSet, key string) language.Set {
	var sets []language.Set
	if v, ok := s.Optional[key]; ok {
		sets = append(sets, language.Literals(v))
	}
	for _, patterns := range []map[string]string{s.Patterns, s.policy.Common.Annotations.Patterns} {
		if pattern, ok := patterns[key]; ok {
			sets = append(sets, k.pattern(pattern))
		}
	}
	for keys, values := range s.policy.Common.Annotations.Keys {
		if k.pattern(keys).Has(key) {
			sets = append(sets, k.pattern(values))
		}
	}
	if s.policy.Strict.Annotations == policydata.Free && strings.HasPrefix(key, cri) {
		return language.All()
	}
	if k.b.VFIO.Count > 0 && passedThrough.MatchString(key) { // which is the same in both, or a difference of its own
		sets = append(sets, k.pattern(k.b.VFIO.Annotation))
	}
	return language.Union(sets...)
}

// otherKeys: each pattern of keys of b, without the keys of a name, is covered by patterns of a that take all of its values.
func (k container) otherKeys(a, b annotationSet, names []string) {
	named := language.Literals(names...)
	for _, keys := range slices.Sorted(maps.Keys(b.policy.Common.Annotations.Keys)) {
		values := b.policy.Common.Annotations.Keys[keys]
		var covers []language.Set
		for other, taken := range a.policy.Common.Annotations.Keys {
			if ok, _, err := k.pattern(values).Within(k.pattern(taken)); ok && err == nil {
				covers = append(covers, k.pattern(other))
			}
		}
		if a.policy.Strict.Annotations == policydata.Free {
			covers = append(covers, k.pattern(`\A`+strings.ReplaceAll(cri, ".", `\.`)))
		}
		k.within("common.annotations.keys", language.Union(covers...), k.pattern(keys).Minus(named), func(key string) []attempt {
			value, _, _ := k.pattern(values).Minus(k.annotation(a, key)).Example()
			return []attempt{k.create(func(i map[string]any) { annotations(i)[key] = value })}
		})
	}
}
