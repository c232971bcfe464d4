// SPDX-License-Identifier: Apache-2.0

package policydata

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"portcullis/engine/fragment"
)

// ErrInvalid is wrapped by every error of Validate.
var ErrInvalid = errors.New("policy_data is not consistent")

// Fault is one thing that is wrong; errors of Validate join them.
type Fault struct {
	Path  string // dotted, with [index] or ["key"]
	Words string
}

func (f *Fault) Error() string { return fmt.Sprintf("%v: %s %s", ErrInvalid, f.Path, f.Words) }

func (f *Fault) Unwrap() error { return ErrInvalid }

// Validate checks what the rules rely on and JSON cannot say: patterns anchored at both ends, references to named sets, names of
// variables used once, sorted groups. It returns every fault, joined, in a fixed order.
func (p *Policy) Validate() error {
	v := &validator{}
	if p.Version != Version {
		v.fault("version", "is %d, want %d", p.Version, Version)
	}
	if p.Order != OrderFree && p.Order != OrderEnforced {
		v.fault("order", "is %q, want free or enforced", p.Order)
	}
	v.strict(&p.Strict)
	v.pattern("sandbox.name", p.Sandbox.Name)
	if p.Sandbox.Hostname != "" && p.Sandbox.Hostname != PodHostname {
		v.pattern("sandbox.hostname", p.Sandbox.Hostname)
	}
	v.common(&p.Common)
	v.requests(&p.Requests)
	if err := fragment.Check(p.Issuers); err != nil {
		v.fault("issuers", "%v", err)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Containers)) {
		v.container(p, name)
	}
	return errors.Join(v.faults...)
}

type validator struct{ faults []error }

func (v *validator) fault(path, format string, args ...any) {
	v.faults = append(v.faults, &Fault{path, fmt.Sprintf(format, args...)})
}

func (v *validator) pattern(path, pattern string) {
	if err := Anchored(pattern); err != nil {
		v.fault(path, "%v", err)
	}
}

func (v *validator) patterns(path string, patterns map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(patterns)) {
		v.pattern(path+"["+strconv.Quote(key)+"]", patterns[key])
	}
}

func (v *validator) list(path string, patterns []string) {
	for i, pattern := range patterns {
		v.pattern(fmt.Sprintf("%s[%d]", path, i), pattern)
	}
}

// strict: the rules take a word that they do not know for the strictest in one place and for less in another.
func (v *validator) strict(s *Strict) {
	fields := reflect.ValueOf(s).Elem()
	for i := range fields.NumField() {
		if level := Level(fields.Field(i).String()); !slices.Contains([]Level{Required, Optional, Free}, level) {
			v.fault("strict."+fields.Type().Field(i).Tag.Get("json"), "is %q, want required, optional or free", level)
		}
	}
}

func (v *validator) common(c *Common) {
	for _, key := range slices.Sorted(maps.Keys(c.Annotations.Keys)) {
		v.pattern("common.annotations.keys", key)
	}
	v.patterns("common.annotations.keys", c.Annotations.Keys)
	v.patterns("common.annotations.patterns", c.Annotations.Patterns)
	v.patterns("common.env.names", c.Env.Names)
	for name := range c.Env.Names {
		v.variable("common.env.names", name)
	}
	for _, set := range slices.Sorted(maps.Keys(c.Capabilities)) {
		v.capabilities("common.capabilities."+set, c.Capabilities[set])
	}
	v.list("common.env.whole", c.Env.Whole)
	for _, name := range slices.Sorted(maps.Keys(c.Paths)) {
		v.list("common.paths."+name+".optional", c.Paths[name].Optional)
	}
	if len(c.SharedDirs) == 0 || len(c.OCIVersions) == 0 || len(c.AppArmor) == 0 {
		v.fault("common.shared_dirs, oci_versions or apparmor", "is empty, so that no container fits")
	}
	if strings.Count(c.BundlePath, "$(container-id)") != 1 || strings.Count(c.RootPath, "$(container-id)") != 1 {
		v.fault("common.bundle_path or root_path", "does not hold $(container-id) once")
	}
}

// capability is a name as agents know it, in one spelling. They take others for the same, such as one that is quoted once more.
var capability = regexp.MustCompile(`^(?:CAP_)?[A-Z_]+$`)

func (v *validator) capabilities(path string, c Capabilities) {
	for _, name := range slices.Concat(c.Ambient, c.Bounding, c.Effective, c.Inheritable, c.Permitted) {
		if !capability.MatchString(name) || strings.HasPrefix(strings.TrimPrefix(name, "CAP_"), "CAP_") {
			v.fault(path, "has %q", name)
		}
	}
}

// variable: the name of an entry ends at its first "=".
func (v *validator) variable(path, name string) {
	if name == "" || strings.Contains(name, "=") {
		v.fault(path, "has a variable called %q", name)
	}
}

func (v *validator) requests(r *Requests) {
	v.list("requests.copy_file", r.CopyFile)
	v.list("requests.exec.joined", r.Exec.Joined)
	v.list("requests.arp.forbidden_addresses", r.AddARPNeighbors.ForbiddenAddresses)
	v.list("requests.routes.forbidden_sources", r.Routes.ForbiddenSources)
}

func (v *validator) container(p *Policy, name string) {
	c, path := p.Containers[name], "containers["+strconv.Quote(name)+"]"
	if c == nil || strings.ContainsAny(name, "/~") || name == "" {
		v.fault(path, "is no container")
		return
	}
	if c.Image.Digest != "" && !c.Image.digestHolds() {
		v.fault(path+".image", "has a name without its digest %s", c.Image.Digest)
	}
	_, hasCaps := p.Common.Capabilities[c.Capabilities]
	_, hasMounts := p.Common.Mounts[c.BaseMounts]
	_, hasPaths := p.Common.Paths[c.Paths]
	if !hasCaps || !hasMounts || !hasPaths {
		v.fault(path, "names a set of capabilities, mounts or paths that common does not have")
	}
	if !slices.IsSorted(c.OCI.Process.User.AdditionalGids) {
		v.fault(path+".OCI.Process.User.AdditionalGids", "is not sorted")
	}
	for _, step := range c.After {
		if p.Containers[step.Container] == nil || step.Container == name {
			v.fault(path+".after", "waits for %q", step.Container)
		}
	}
	v.patterns(path+".annotations.patterns", c.Annotations.Patterns)
	v.shape(path, name, c)
	if c.VFIO.Count < 0 || c.VFIO.Count > maxDevices {
		v.fault(path+".vfio.count", "is %d, want 0 to %d", c.VFIO.Count, maxDevices)
	}
	if c.VFIO.Count > 0 {
		v.pattern(path+".vfio.annotation", c.VFIO.Annotation)
	}
	v.args(path, c)
	v.env(path, &c.Env)
	v.mounts(path, p, c)
}

// maxDevices is more than any machine passes through.
const maxDevices = 256

var driver = regexp.MustCompile(`^(?:[0-9A-Za-z_-]+|\$\(block\))$`)

// shape: values with which no runtime can ask for the container, or the rules take no request.
func (v *validator) shape(path, name string, c *Container) {
	if (c.Type == TypeSandbox) != (name == SandboxContainer) || c.Type != TypeSandbox && c.Type != TypeContainer {
		v.fault(path+".type", "is %q", c.Type)
	}
	for _, kind := range c.Namespaces {
		if !slices.Contains([]string{"cgroup", "ipc", "mount", "pid", "user", "uts"}, kind) {
			v.fault(path+".namespaces", "has %q", kind)
		}
	}
	for _, s := range c.Storages {
		if !driver.MatchString(s.Driver) || !strings.HasPrefix(s.MountPoint, "/") && !strings.HasPrefix(s.MountPoint, "$(") {
			v.fault(path+".storages", "has one of driver %q at %q", s.Driver, s.MountPoint)
		}
	}
	for _, step := range c.After {
		if step.State != Started && step.State != Succeeded {
			v.fault(path+".after", "waits for the state %q", step.State)
		}
	}
	if c.StopSignal > 64 {
		v.fault(path+".stop_signal", "is %d", c.StopSignal)
	}
}

func (v *validator) args(path string, c *Container) {
	for _, key := range slices.Sorted(maps.Keys(c.ArgMatches)) {
		m := c.ArgMatches[key]
		if n, err := strconv.Atoi(key); err != nil || n < 0 || n >= len(c.Args) || (m.Pattern == "") == (m.Template == "") {
			v.fault(path+".arg_matches", "entry %q is not one pattern or template for an argument", key)
		}
		if m.Pattern != "" {
			v.pattern(path+".arg_matches", m.Pattern)
		}
	}
}

func (v *validator) env(path string, e *Env) {
	v.patterns(path+".env.patterns", e.Patterns)
	v.patterns(path+".env.optional", e.Optional)
	seen := map[string]bool{}
	names := slices.Concat(slices.Collect(maps.Keys(e.Patterns)), slices.Collect(maps.Keys(e.Optional)),
		slices.Collect(maps.Keys(e.Templates)), slices.Collect(maps.Keys(e.Hashes)))
	for _, entry := range e.Fixed {
		name, _, ok := strings.Cut(entry, "=")
		if !ok {
			v.fault(path+".env.fixed", "has an entry that is not NAME=value")
		}
		names = append(names, name)
	}
	for _, entry := range e.Shadowed {
		if !strings.Contains(entry, "=") {
			v.fault(path+".env.shadowed", "has an entry that is not NAME=value")
		}
	}
	for _, name := range names {
		v.variable(path+".env", name)
		if seen[name] {
			v.fault(path+".env", "has %s twice", name)
		}
		seen[name] = true
	}
}

func (v *validator) mounts(path string, p *Policy, c *Container) {
	for _, destination := range slices.Sorted(maps.Keys(c.Mounts)) {
		m, at := c.Mounts[destination], path+".mounts["+destination+"]."
		if m.Contents != nil && m.From != MountShared {
			v.fault(at+"contents", "are of a mount that is not shared")
		}
		if m.Copied != "" {
			v.copied(at+"copied", m.Copied, m.From == MountLocal && p.SharesNothing())
		}
		if m.From != MountExact && m.Source == "" {
			v.fault(at+"source", "is empty")
		} else if !slices.Contains([]MountFrom{MountExact, MountShared, MountStorage, MountLocal}, m.From) {
			v.fault(at+"from", "is %q", m.From)
		}
	}
	for _, m := range p.Common.Mounts[c.BaseMounts] {
		if !strings.HasPrefix(m.Destination, "/") {
			v.fault(path+".base_mounts", "have one at %q", m.Destination)
		}
		if _, twice := c.Mounts[m.Destination]; twice {
			v.fault(path+".mounts", "has %s, which its base mounts have", m.Destination)
		}
	}
}

func (v *validator) copied(path, pattern string, guests bool) {
	v.pattern(path, strings.ReplaceAll(pattern, ContainerID, "x"))
	if !guests {
		v.fault(path, "is of a mount that is not local, or in a guest that shares files with the host")
	}
}

// SharesNothing says that the host shares no directory with the guest, and copies nothing that no mount knows: what is below the
// shared directories is then the guest's own.
func (p *Policy) SharesNothing() bool {
	return p.Strict.Mounts == Required && !slices.ContainsFunc(p.Sandbox.Storages, p.fromHost)
}

// fromHost is true for a file system of the host, and for any that the sandbox has at, above or below a shared directory.
func (p *Policy) fromHost(s Storage) bool {
	at := strings.TrimSuffix(s.MountPoint, "/") + "/"
	return s.FSType == "virtiofs" || slices.ContainsFunc(p.Common.SharedDirs, func(dir string) bool {
		dir = strings.TrimSuffix(dir, "/") + "/"
		return strings.HasPrefix(dir, at) || strings.HasPrefix(at, dir)
	})
}

// Anchored returns an error unless every string that the pattern matches is matched from its first to its last character. An
// alternation such as "^a|b$" is not; "^(?:a|b)$" is.
func Anchored(pattern string) error {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return fmt.Errorf("pattern %q: %w", pattern, err)
	}
	if re.Op != syntax.OpConcat || len(re.Sub) < 2 || re.Sub[0].Op != syntax.OpBeginText || re.Sub[len(re.Sub)-1].Op != syntax.OpEndText {
		return fmt.Errorf("pattern %q is not anchored at both ends", pattern)
	}
	return nil
}
