// SPDX-License-Identifier: Apache-2.0

package review

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"portcullis/rules"
	"portcullis/rules/policydata"
)

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// sentence is one thing that a policy allows, or, with limit, one thing that it insists on: a policy without it allows more.
type sentence struct {
	subject string // container for people, or what else it is about
	key     string // exact: two policies say the same if it is the same; "" for what is shown and not compared
	words   string
	limit   bool
	topic   topic // under which reports and explanations show row; "" for what only comparisons say
	row     row
}

// speaker collects sentences.
type speaker struct {
	subject string
	list    []sentence
	secrets bool
}

func (s *speaker) may(format string, args ...any) {
	s.mayAs(exactly(format, args), fmt.Sprintf(format, args...))
}

// exactly is a key for words: each text in it stands for itself, whatever it holds.
func exactly(format string, args []any) string {
	return fmt.Sprintf(strings.ReplaceAll(format, "%s", "%q"), args...)
}

// mayAs is may with a key that holds what the words hide or run together.
func (s *speaker) mayAs(key, words string) {
	s.list = append(s.list, sentence{subject: s.subject, key: key, words: words})
}

// shown says of what is said last how reports and explanations show it.
func (s *speaker) shown(t topic, r row) {
	last := &s.list[len(s.list)-1]
	last.topic, last.row = t, r
}

// show is for what forbids nothing, which a reader wants to know all the same.
func (s *speaker) show(t topic, r row) {
	s.list = append(s.list, sentence{subject: s.subject, topic: t, row: r})
}

// has says that a container has a value, which stands for %s in words.
func (s *speaker) has(t topic, words, value string) {
	s.may(words, value)
	s.shown(t, row{Value: value})
}

func (s *speaker) must(format string, args ...any) {
	s.mustAs(exactly(format, args), fmt.Sprintf(format, args...))
}

// mustAs is must with a key that holds what the words leave out.
func (s *speaker) mustAs(key, words string) {
	s.list = append(s.list, sentence{subject: s.subject, key: "must " + key, words: words, limit: true})
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
		s.mayAs("sandbox "+storageKey(st), "sandbox storage "+storageWords(st))
	}
	for _, word := range strictWords(p.Strict) {
		if word.Level != policydata.Required {
			s.mayAs("strict "+word.Key+" "+string(word.Level), strings.TrimSuffix(word.Words, ".")+": "+string(word.Level))
		}
	}
	s.common(p.Common)
	for i := range p.Issuers {
		s.issuer(&p.Issuers[i])
	}
}

// common is what every container of the pod may have.
func (s *speaker) common(c policydata.Common) {
	for _, version := range c.OCIVersions {
		s.may("OCI version %s", version)
	}
	for _, profile := range c.AppArmor {
		s.may("AppArmor profile %q", profile)
	}
	for _, key := range sorted(c.Annotations.Patterns) {
		s.may("annotation %s matching %s on any container", key, c.Annotations.Patterns[key])
	}
	for _, key := range sorted(c.Annotations.Keys) {
		s.may("annotations whose key matches %s, value matching %s, on any container", key, c.Annotations.Keys[key])
	}
	for _, name := range sorted(c.Env.Names) {
		s.may("variable %s matching %s in any container", name, c.Env.Names[name])
	}
	for _, pattern := range c.Env.Whole {
		s.may("variables matching %s in any container", pattern)
	}
	s.may("root path %s, bundle %s", c.RootPath, c.BundlePath)
	for _, path := range c.OtherRootPaths {
		s.may("root path %s", path)
	}
	for _, pattern := range c.SharedSources {
		s.may("shared files whose source matches %s", pattern)
	}
	for _, dir := range c.SharedDirs {
		s.may("shared files below %s", dir)
	}
	s.may("block storages below %s", c.StorageDir)
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

// or is a, or b if other is set.
func or(a, b string, other bool) string {
	if other {
		return b
	}
	return a
}
