// SPDX-License-Identifier: Apache-2.0

package review

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"portcullis/rules"
	"portcullis/rules/policydata"
)

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func valuesOf[V any](m map[string]V) iter.Seq[V] { return maps.Values(m) }

// sentence is one thing that a policy allows, or, with Limit, one thing that it
// insists on: a policy without it allows more.
type sentence struct {
	subject string // container for people, or what else it is about
	key     string // exact: two policies say the same if it is the same
	words   string
	limit   bool
	list    string // what words are an item of, where a container may have many: "variables"
	item    string
}

// speaker collects sentences.
type speaker struct {
	subject string
	list    []sentence
	secrets bool
}

func (s *speaker) may(format string, args ...any) {
	words := fmt.Sprintf(format, args...)
	s.list = append(s.list, sentence{subject: s.subject, key: words, words: words})
}

// mayAs is may with a key that holds what the words hide.
func (s *speaker) mayAs(key, words string) {
	s.list = append(s.list, sentence{subject: s.subject, key: key, words: words})
}

// among says of what is said last that it is one of a list.
func (s *speaker) among(list, item string) {
	last := &s.list[len(s.list)-1]
	last.list, last.item = list, item
}

func (s *speaker) must(format string, args ...any) {
	words := fmt.Sprintf(format, args...)
	s.list = append(s.list, sentence{subject: s.subject, key: "must " + words, words: words, limit: true})
}

// sentences says what a policy allows, container by container.
func (s *Subject) sentences(secrets bool) []sentence {
	out := &speaker{secrets: secrets}
	out.subject = "policy"
	if s.Waives {
		out.may("every request, even if it is denied (AllowRequestsFailingPolicy)")
	}
	out.subject = "requests"
	for _, a := range s.Answers {
		if a.Stance == rules.Allowed {
			out.may("%s, whatever it holds", a.Request)
		}
	}
	if s.Data == nil {
		return out.list
	}
	out.pod(s.Data)
	out.requests(s.Data.Requests)
	for _, name := range s.names() {
		out.container(s.Data, name)
	}
	return out.list
}

func (s *speaker) pod(p *policydata.Policy) {
	s.subject = "pod"
	s.may("a name that matches %s", p.Sandbox.Name)
	s.may("%s", or("namespace "+p.Sandbox.Namespace, "any namespace", p.Sandbox.Namespace == ""))
	switch p.Sandbox.Hostname {
	case "":
		s.may("host name of any value")
	case "^$":
		s.may("no host name")
	case policydata.PodHostname:
		s.may("host name %s", p.Sandbox.Hostname)
	default:
		s.may("a host name that matches %s", p.Sandbox.Hostname)
	}
	if p.Order != policydata.OrderFree {
		s.must("containers come in the order of the manifest (order %s)", p.Order)
	}
	s.may("%s", or("process namespaces of the containers' own", "one process namespace for the pod", p.Sandbox.PIDNS))
	for _, st := range p.Sandbox.Storages {
		s.may("sandbox storage %s", storageWords(st))
	}
	for _, word := range strictWords(p.Strict) {
		if word.Level != policydata.Required {
			s.mayAs("strict "+word.Key+" "+string(word.Level), strings.TrimSuffix(word.Words, ".")+": "+string(word.Level))
		}
	}
	for _, version := range p.Common.OCIVersions {
		s.may("OCI version %s", version)
	}
	for _, profile := range p.Common.AppArmor {
		s.may("AppArmor profile %q", profile)
	}
	for _, key := range sorted(p.Common.Annotations.Patterns) {
		s.may("annotation %s matching %s on any container", key, p.Common.Annotations.Patterns[key])
	}
	for _, key := range sorted(p.Common.Annotations.Keys) {
		s.may("annotations whose key matches %s, value matching %s, on any container", key, p.Common.Annotations.Keys[key])
	}
	for _, name := range sorted(p.Common.Env.Names) {
		s.may("variable %s matching %s in any container", name, p.Common.Env.Names[name])
	}
	for _, pattern := range p.Common.Env.Whole {
		s.may("variables matching %s in any container", pattern)
	}
	s.may("root path %s, bundle %s", p.Common.RootPath, p.Common.BundlePath)
	for _, dir := range p.Common.SharedDirs {
		s.may("shared files below %s", dir)
	}
	s.may("block storages below %s", p.Common.StorageDir)
	for _, words := range updates(p) {
		s.may("%s", words)
	}
}

func (s *speaker) requests(r policydata.Requests) {
	s.subject = "requests"
	on := func(set bool, words string) {
		if set {
			s.may("%s", words)
		}
	}
	on(r.ReadStream, "output of processes to the host")
	on(r.WriteStream, "input from the host to every process")
	on(r.CloseStdin, "closing of any standard input")
	on(r.Exec.Stdin, "input from the host to commands")
	on(r.Exec.Terminal, "terminals for commands")
	on(r.GetDiagnosticData, "diagnostic data to the host")
	on(r.UpdateEphemeralMounts, "other sizes of memory-backed volumes")
	for _, argv := range r.Exec.Commands {
		s.may("command in every container: %s", commandLine(argv))
	}
	for _, pattern := range r.Exec.Joined {
		s.may("commands in every container that match %s", pattern)
	}
	for _, pattern := range r.CopyFile {
		s.may("files copied to paths that match %s", pattern)
	}
	for _, name := range r.Allow {
		s.may("%s, whatever it holds", name)
	}
	forbidden := map[string][]string{
		"interfaces named": r.Interface.ForbiddenNames, "interfaces with address": r.Interface.ForbiddenHWAddrs,
		"routes by device": r.Routes.ForbiddenDevices, "routes from or to": r.Routes.ForbiddenSources,
		"neighbors by device": r.AddARPNeighbors.ForbiddenDevices, "neighbors at": r.AddARPNeighbors.ForbiddenAddresses,
	}
	for _, name := range sorted(forbidden) {
		for _, value := range forbidden[name] {
			s.must("no %s %s", name, value)
		}
	}
	s.may("interface flags %#x", r.Interface.RawFlags)
	s.may("neighbor flags %#x and states %v", r.AddARPNeighbors.Flags, r.AddARPNeighbors.States)
}

func (s *speaker) container(p *policydata.Policy, name string) {
	c := p.Containers[name]
	s.subject = "container " + Called(name)
	s.may("runs %s", commandLine(argumentsOf(c)))
	s.may("as a %s", c.Type)
	s.may("in directory %s", c.Cwd)
	s.may("as %s", user(c.OCI.Process.User))
	s.image(c)
	s.env(c.Env)
	for _, argv := range c.Exec {
		s.may("command: %s", commandLine(argv))
	}
	s.rights(p, c)
	s.volumes(p, c)
	for _, key := range sorted(c.Annotations.Fixed) {
		s.may("annotation %s = %s", key, c.Annotations.Fixed[key])
	}
	for _, key := range sorted(c.Annotations.Optional) {
		s.may("annotation %s = %s, or none", key, c.Annotations.Optional[key])
	}
	for _, key := range sorted(c.Annotations.Patterns) {
		s.may("annotation %s matching %s", key, c.Annotations.Patterns[key])
	}
	for _, after := range c.After {
		s.must("%s has %s before", Called(after.Container), after.State)
	}
}

func (s *speaker) image(c *policydata.Container) {
	i, words := c.Image, content(c)
	for _, name := range i.Also {
		s.may("image called %s as well", name)
	}
	i.Also = nil
	source := i.Source
	if source == "" {
		source = c.OCI.Annotations.ImageName
	}
	s.mayAs(fmt.Sprint("image ", i, c.OCI.Annotations), fmt.Sprintf("image %s (%s)", or(source, "of the host's choice", source == ""), words))
	if c.ImageBound() {
		s.must("its image is bound")
	}
}

func (s *speaker) env(e policydata.Env) {
	for _, entry := range e.Fixed {
		name, value, _ := strings.Cut(entry, "=")
		shown := hiddenValue(value)
		if s.secrets {
			shown = value
		}
		s.mayAs("env "+entry, fmt.Sprintf("variable %s = (%s)", name, shown))
		s.among("variables", name)
	}
	template, pattern := hiddenTemplate, hiddenPattern
	if s.secrets {
		template, pattern = strings.Clone, strings.Clone
	}
	for _, name := range sorted(e.Templates) {
		value := e.Templates[name]
		s.mayAs("env "+name+"="+value, fmt.Sprintf("variable %s = %s", name, template(value)))
		s.among("variables", name)
	}
	for _, name := range sorted(e.Patterns) {
		value := e.Patterns[name]
		s.mayAs("env "+name+"~"+value, fmt.Sprintf("variable %s matching %s", name, pattern(value)))
		s.among("variables", name)
	}
	for _, name := range sorted(e.Optional) {
		value := e.Optional[name]
		s.mayAs("env "+name+"?"+value, fmt.Sprintf("variable %s matching %s, or none", name, pattern(value)))
		s.among("variables", name)
	}
}

func (s *speaker) rights(p *policydata.Policy, c *policydata.Container) {
	limit := func(set bool, words string) {
		if set {
			s.must("%s", words)
		}
	}
	limit(c.NoNewPrivs, "gains no new privileges")
	limit(c.ReadonlyRoot, "root filesystem is read-only")
	limit(!c.PIDNS, "has a process namespace of its own")
	limit(!c.Terminal, "has no terminal")
	limit(!c.Stdin, "standard input is closed to the host")
	if c.StopSignal != 0 {
		s.may("signal %d, beside those that every container may be sent", c.StopSignal)
	}
	sets := p.Common.Capabilities[c.Capabilities]
	for _, set := range []struct {
		name  string
		names []string
	}{{"ambient", sets.Ambient}, {"bounding", sets.Bounding}, {"effective", sets.Effective}, {"inheritable", sets.Inheritable}, {"permitted", sets.Permitted}} {
		for _, name := range set.names {
			s.may("capability %s (%s)", name, set.name)
			s.among("capabilities", name)
		}
	}
	paths := p.Common.Paths[c.Paths]
	for _, path := range paths.Masked {
		s.must("%s is masked", path)
	}
	for _, path := range paths.Readonly {
		s.must("%s is read-only", path)
	}
	for _, pattern := range paths.Optional {
		s.may("masking of paths that match %s", pattern)
	}
	for _, namespace := range c.Namespaces {
		s.must("has a namespace of its own: %s", namespace)
	}
	for _, key := range sorted(c.Sysctl.Fixed) {
		s.may("sysctl %s = %s", key, c.Sysctl.Fixed[key])
	}
	for _, key := range sorted(c.Sysctl.Optional) {
		s.may("sysctl %s = %s, or none", key, c.Sysctl.Optional[key])
	}
}

func (s *speaker) volumes(p *policydata.Policy, c *policydata.Container) {
	for _, m := range p.Common.Mounts[c.BaseMounts] {
		s.may("mount %s from %s (%s)", m.Destination, m.Source, mountWords(m.Type, m.Options))
		s.among("mounts", m.Destination)
	}
	for _, destination := range sorted(c.Mounts) {
		m := c.Mounts[destination]
		words := fmt.Sprintf("mount %s from %s (%s)%s", destination, from(m), mountWords(m.Type, m.Options), or("", ", or none", m.MayBeMissing))
		s.mayAs(string(m.From)+" "+words, words)
		s.among("mounts", destination)
		for _, option := range m.ExtraOptions {
			s.may("mount %s with %s too", destination, option)
		}
		s.contents(destination, m.Contents)
	}
	for _, st := range c.Storages {
		s.may("storage %s", storageWords(st))
	}
	for _, path := range c.Devices {
		s.may("device %s", path)
	}
	if c.VFIO.Count > 0 {
		s.may("%d passed-through devices %s (%s), annotated %s", c.VFIO.Count, c.VFIO.Path, c.VFIO.Type, c.VFIO.Annotation)
	}
}

// contents says which files of a mount are held to what is known of them.
func (s *speaker) contents(destination string, c *policydata.Contents) {
	if c == nil {
		return
	}
	for _, key := range sorted(c.Files) {
		if f := c.Files[key]; f.SHA256 != "" {
			s.must("file %s of %s has the content sha256:%s", or(key, "itself", key == ""), destination, f.SHA256)
		}
	}
	if !c.Open {
		s.must("no file but those of the policy is copied below %s", destination)
	}
}

func mountWords(kind string, options []string) string {
	return kind + ": " + strings.Join(slices.Sorted(slices.Values(options)), ",")
}

func storageWords(s policydata.Storage) string {
	words := fmt.Sprintf("%s %s, %s on %s", s.Driver, s.Source, s.FSType, s.MountPoint)
	if s.Driver == "$(block)" && s.Source == "$(device)" && s.MountPoint == "$(device)" {
		words = "a block device of the host's choice, " + s.FSType
	}
	if options := slices.Concat(s.Options, s.DriverOptions); len(options) > 0 {
		words += " (" + strings.Join(slices.Sorted(slices.Values(options)), ", ") + ")"
	}
	if s.FSGroup != nil {
		words += fmt.Sprintf(", group %d", s.FSGroup.GID)
	}
	return words + or("", ", shared", s.Shared)
}

// or is a, or b if other is set.
func or(a, b string, other bool) string {
	if other {
		return b
	}
	return a
}
