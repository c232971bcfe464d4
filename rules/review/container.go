// SPDX-License-Identifier: Apache-2.0

package review

import (
	"fmt"
	"slices"
	"strings"

	"portcullis/rules/policydata"
)

// topic is what a sentence about a container is about, as reports call it.
type topic string

// The topics in the order in which they are shown.
const (
	topicRuns        topic = "Runs"
	topicDirectory   topic = "In"
	topicUser        topic = "As"
	topicImage       topic = "Image"
	topicAfter       topic = "After"
	topicCommands    topic = "Commands"
	topicRights      topic = "Rights"
	topicSysctls     topic = "Sysctls"
	topicDevices     topic = "Devices"
	topicStorages    topic = "Storages"
	topicVariables   topic = "Variables"
	topicMounts      topic = "Mounts"
	topicAnnotations topic = "Annotations"
	topicCapability  topic = "Capabilities" // shown by their set
	topicUsualMounts topic = "Usual mounts" // likewise
)

// row is how a sentence is shown under its topic: a row of a table, or an item of a list.
type row struct{ Name, Value, Note string }

// statements is what is said of one container.
type statements []sentence

func sayContainer(p *policydata.Policy, name string, secrets bool) statements {
	s := speaker{secrets: secrets}
	s.container(p, name)
	return s.list
}

// rows are what is shown under a topic. Variables come by name, and those that say where the API server is as one.
func (s statements) rows(t topic) []row {
	var rows []row
	links := 0
	for _, said := range s {
		switch {
		case said.topic != t || slices.Contains(rows, said.row):
		case t == topicVariables && said.row.Note == "pattern" && strings.HasPrefix(said.row.Name, "KUBERNETES_"):
			links++
		default:
			rows = append(rows, said.row)
		}
	}
	if links > 0 {
		rows = append(rows, row{"KUBERNETES_…", fmt.Sprintf("%d variables that say where the API server is", links), "pattern"})
	}
	if t == topicVariables {
		slices.SortStableFunc(rows, func(a, b row) int { return strings.Compare(a.Name, b.Name) })
	}
	return rows
}

// topicRows are the rows of one topic.
type topicRows struct {
	Topic topic
	Rows  []row
}

// facts are the topics that are lists and not tables, without those of which there is nothing to say.
func (s statements) facts() []topicRows {
	var out []topicRows
	for _, t := range []topic{topicRuns, topicDirectory, topicUser, topicImage, topicAfter, topicCommands, topicRights, topicSysctls, topicDevices, topicStorages} {
		rows := s.rows(t)
		if len(rows) == 0 && t == topicCommands {
			rows = []row{{Note: "none of its own"}}
		}
		if len(rows) > 0 {
			out = append(out, topicRows{t, rows})
		}
	}
	return out
}

// container says what one container may be. All that a report, an explanation or a comparison tells of a field of policy_data is
// said here.
func (s *speaker) container(p *policydata.Policy, name string) {
	c := p.Containers[name]
	s.subject = "container " + Called(name)
	s.mayAs(fmt.Sprintf("runs %q %q", c.Args, c.ArgMatches), "runs "+commandLine(argumentsOf(c)))
	s.shown(topicRuns, row{Value: commandLine(argumentsOf(c))})
	s.may("as a %s", c.Type)
	s.has(topicDirectory, "in directory %s", c.Cwd)
	s.user("", c.OCI.Process.User)
	for _, other := range c.OtherUsers {
		s.user("or ", other)
	}
	s.image(c)
	for _, step := range c.After {
		words := fmt.Sprintf("%s has %s", Called(step.Container), step.State)
		s.must("%s before", words)
		if p.Order != policydata.OrderFree { // else nothing holds to it
			s.shown(topicAfter, row{Note: words})
		}
	}
	for _, argv := range c.Exec {
		s.has(topicCommands, "command: %s", commandLine(argv))
	}
	s.rights(p, c)
	s.sysctls(c.Sysctl)
	s.env(c.Env)
	s.volumes(p, c)
	s.annotations(c.Annotations)
}

// user says as whom a container may run, after what stands before it.
func (s *speaker) user(before string, u policydata.User) {
	s.mayAs(fmt.Sprintf("%suser %+v", before, u), before+"as "+user(u))
	s.shown(topicUser, row{Note: before + user(u)})
}

func (s *speaker) image(c *policydata.Container) {
	i := c.Image
	names := []string{i.Source}
	if i.Source == "" {
		names[0] = c.OCI.Annotations.ImageName
	}
	names[0] = or(names[0], "any", names[0] == "")
	for _, name := range i.Also {
		names = append(names, name)
		s.may("image called %s as well", name)
	}
	i.Also = nil
	s.mayAs(fmt.Sprintf("image %q %q", i, c.OCI.Annotations), fmt.Sprintf("image %s (%s)", or(names[0], "of the host's choice", names[0] == "any"), content(c)))
	s.shown(topicImage, row{Value: strings.Join(names, ", also called "), Note: content(c)})
	if c.ImageBound() {
		s.must("its image is bound")
	}
}

// env says which variables a container has. Their values may be secrets, and so may the text of a template or pattern.
func (s *speaker) env(e policydata.Env) {
	value, template, pattern := hiddenValue, hiddenTemplate, hiddenPattern
	if s.secrets {
		value, template, pattern = strings.Clone, strings.Clone, strings.Clone
	}
	say := func(key, words string, r row) {
		s.mayAs("env "+key, "variable "+r.Name+" "+words)
		s.shown(topicVariables, r)
	}
	for _, entry := range e.Fixed {
		name, text, _ := strings.Cut(entry, "=")
		say("fixed "+entry, "= ("+value(text)+")", row{name, value(text), "fixed"})
	}
	for _, name := range sorted(e.Hashes) {
		say("hash "+name+"="+e.Hashes[name], "by the hash of its value", row{name, "", "by the hash of its value"})
	}
	for _, name := range sorted(e.Templates) {
		text := e.Templates[name]
		say("template "+name+"="+text, "= "+template(text), row{name, template(text), "from the pod"})
	}
	for _, name := range sorted(e.Patterns) {
		text := e.Patterns[name]
		say("pattern "+name+"="+text, "matching "+pattern(text), row{name, patternWords(text, pattern), "pattern"})
	}
	for _, name := range sorted(e.Optional) {
		text := e.Optional[name]
		say("optional "+name+"="+text, "matching "+pattern(text)+", or none", row{name, patternWords(text, pattern), "pattern, may be missing"})
	}
	for _, entry := range e.Shadowed { // no row: the pod's own value comes after it
		name, text, _ := strings.Cut(entry, "=")
		s.mayAs("env shadowed "+entry, fmt.Sprintf("variable %s of the image before the pod's own (%s)", name, value(text)))
	}
}

// everyones are the signals that every container may be sent: SIGKILL and SIGTERM.
var everyones = map[uint32]bool{9: true, 15: true}

func (s *speaker) rights(p *policydata.Policy, c *policydata.Container) {
	for _, right := range []struct {
		held             bool
		words, otherwise string
	}{
		{c.NoNewPrivs, "gains no new privileges", "can gain privileges by set-user-id programs"},
		{c.ReadonlyRoot, "root filesystem is read-only", "writable root filesystem"},
		{!c.PIDNS, "has a process namespace of its own", "shares the pod's process namespace"},
		{!c.Terminal, "has no terminal", "has a terminal"},
		{!c.Stdin, "standard input is closed to the host", "standard input open to the host"},
	} {
		if right.held {
			s.must("%s", right.words)
			s.shown(topicRights, row{Note: right.words})
		} else {
			s.show(topicRights, row{Note: right.otherwise})
		}
	}
	if c.StopSignal != 0 && !everyones[c.StopSignal] {
		s.may("signal %d, beside those that every container may be sent", c.StopSignal)
		s.shown(topicRights, row{Note: fmt.Sprintf("may be sent signal %d", c.StopSignal)})
	}
	for _, set := range setsOf(p.Common.Capabilities[c.Capabilities]) {
		for _, name := range set.names {
			s.may("capability %s (%s)", name, set.name)
			s.shown(topicCapability, row{Name: name})
		}
	}
	paths := p.Common.Paths[c.Paths]
	for _, path := range paths.Masked {
		s.must("%s is masked", path)
	}
	if len(paths.Masked) == 0 {
		s.show(topicRights, row{Note: "no path of the kernel is masked"})
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
}

func (s *speaker) sysctls(list policydata.Sysctl) {
	for _, key := range sorted(list.Fixed) {
		s.sysctl("fixed", key, list.Fixed[key], "")
	}
	for _, key := range sorted(list.Optional) {
		s.sysctl("optional", key, list.Optional[key], ", or none")
	}
}

func (s *speaker) sysctl(kind, key, value, more string) {
	words := key + " = " + value + more
	s.mayAs(fmt.Sprintf("sysctl %s %q %q", kind, key, value), "sysctl "+words)
	s.shown(topicSysctls, row{Value: words})
}

func (s *speaker) volumes(p *policydata.Policy, c *policydata.Container) {
	for _, m := range p.Common.Mounts[c.BaseMounts] {
		s.mayAs(fmt.Sprintf("usual mount %q %q %q %q", m.Destination, m.Source, m.Type, inAnyOrder(m.Options)),
			fmt.Sprintf("mount %s from %s (%s)", m.Destination, m.Source, mountWords(m.Type, m.Options)))
		s.shown(topicUsualMounts, row{Name: m.Destination})
	}
	for _, destination := range sorted(c.Mounts) {
		m := c.Mounts[destination]
		words := fmt.Sprintf("mount %s from %s (%s)%s", destination, from(m), mountWords(m.Type, m.Options), or("", ", or none", m.MayBeMissing))
		s.mayAs(fmt.Sprintf("mount %q %q %q %q %q %q %t", destination, m.From, m.Source, m.Copied, m.Type, inAnyOrder(m.Options), m.MayBeMissing), words)
		s.shown(topicMounts, row{destination, from(m), access(m.Options) + bound(m) + or("", ", may be missing", m.MayBeMissing)})
		for _, option := range m.ExtraOptions {
			s.may("mount %s with %s too", destination, option)
		}
		s.contents(destination, m.Contents)
	}
	for _, st := range c.Storages {
		s.mayAs(storageKey(st), "storage "+storageWords(st))
		s.shown(topicStorages, row{Value: storageWords(st)})
	}
	for _, path := range c.Devices {
		s.has(topicDevices, "device %s", path)
	}
	if v := c.VFIO; v.Count > 0 {
		s.may("%d passed-through devices %s (%s), annotated %s", v.Count, v.Path, v.Type, v.Annotation)
		s.shown(topicDevices, row{Value: fmt.Sprintf("%d passed-through devices below %s", v.Count, v.Path)})
	}
}

// contents says which files of a mount are held to what is known of them.
func (s *speaker) contents(destination string, c *policydata.Contents) {
	if c == nil {
		return
	}
	for _, key := range sorted(c.Files) {
		f, name := c.Files[key], or(key, "itself", key == "")
		if f.SHA256 == "" {
			s.mayAs(fmt.Sprintf("file %s %q %+v", destination, key, f), fmt.Sprintf("file %s of %s with any content", name, destination))
			continue
		}
		s.mustAs(fmt.Sprintf("file %s %q %+v", destination, key, f), fmt.Sprintf("file %s of %s has the content sha256:%s (%d bytes, mode %#o%s)",
			name, destination, f.SHA256, f.Size, f.Mode, or("", ", may be missing", f.Optional)))
	}
	if !c.Open {
		s.must("no file but those of the policy is copied below %s", destination)
	}
}

func (s *speaker) annotations(a policydata.Annotations) {
	for _, key := range sorted(a.Fixed) {
		s.may("annotation %s = %s", key, a.Fixed[key])
		s.shown(topicAnnotations, row{key, a.Fixed[key], "fixed"})
	}
	for _, key := range sorted(a.Optional) {
		s.may("annotation %s = %s, or none", key, a.Optional[key])
		s.shown(topicAnnotations, row{key, a.Optional[key], "may be missing"})
	}
	for _, key := range sorted(a.Patterns) {
		s.may("annotation %s matching %s", key, a.Patterns[key])
		s.shown(topicAnnotations, row{key, a.Patterns[key], "pattern"})
	}
}

func inAnyOrder(options []string) []string { return slices.Sorted(slices.Values(options)) }

func mountWords(kind string, options []string) string {
	return kind + ": " + strings.Join(inAnyOrder(options), ",")
}

// storageKey has what storageWords runs together, such as the options of an agent's driver and those of a mount.
func storageKey(s policydata.Storage) string {
	group := s.FSGroup
	if group == nil {
		group = new(policydata.FSGroup)
	}
	return fmt.Sprintf("storage %q %q %q %q %q %q %t %v %t", s.Driver, s.Source, s.FSType, s.MountPoint, inAnyOrder(s.Options), inAnyOrder(s.DriverOptions),
		s.FSGroup != nil, *group, s.Shared)
}

func storageWords(s policydata.Storage) string {
	words := fmt.Sprintf("%s %s, %s on %s", s.Driver, s.Source, s.FSType, s.MountPoint)
	if s.Driver == "$(block)" && s.Source == "$(device)" && s.MountPoint == "$(device)" {
		words = "a block device of the host's choice, " + s.FSType
	}
	if options := slices.Concat(s.Options, s.DriverOptions); len(options) > 0 {
		words += " (" + strings.Join(inAnyOrder(options), ", ") + ")"
	}
	if s.FSGroup != nil {
		words += fmt.Sprintf(", group %d", s.FSGroup.GID) + or("", " where the root has another", s.FSGroup.Policy == 1)
	}
	return words + or("", ", shared", s.Shared)
}
