// SPDX-License-Identifier: Apache-2.0

// Package words says in words what a policy lets the containers of a pod do. It
// prints no values of environment variables: they may be secrets.
package words

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"portcullis/rules/policydata"
	"portcullis/rules/review"
)

// Write writes the explanation of a policy, called name, to w. What the policy
// leaves unbound comes first.
func Write(w io.Writer, name string, p *policydata.Policy) error {
	var t page
	t.line("Policy of %s", name)
	t.unbound(p)
	t.pod(p)
	for _, c := range order(p) {
		t.container(p, c)
	}
	t.requests(p)
	_, err := io.WriteString(w, t.String())
	return err
}

// page is text under construction.
type page struct{ strings.Builder }

func (t *page) line(format string, args ...any) { fmt.Fprintf(t, format+"\n", args...) }

// item writes a line only when there is something to list.
func (t *page) item(label string, items []string) {
	if len(items) > 0 {
		t.line("  %s: %s", label, strings.Join(items, ", "))
	}
}

// unbound lists what a reviewer has to know first: what the report of policyctl says too.
func (t *page) unbound(p *policydata.Policy) {
	found := review.Of(p)
	if !slices.ContainsFunc(found, func(w review.Warning) bool { return w.Level == review.Grave }) {
		t.line("Everything that runs is bound.")
	}
	for _, level := range []struct {
		level review.Level
		title string
		mark  string
	}{{review.Grave, "Grave:", "!"}, {review.Look, "To look at:", "?"}, {review.Note, "Notes:", "-"}} {
		title := level.title
		for _, w := range found {
			if w.Level != level.level {
				continue
			}
			if title != "" {
				t.line("%s", title)
				title = ""
			}
			about := ""
			if w.Container != "" {
				about = review.Called(w.Container) + ": "
			}
			t.line("  %s %s%s", level.mark, about, w.Text)
		}
	}
}

func (t *page) pod(p *policydata.Policy) {
	namespace := p.Sandbox.Namespace
	if namespace == "" {
		namespace = "any one namespace"
	}
	t.line("Pod: named %s, in %s", unanchored(p.Sandbox.Name), namespace)
	if p.Order == policydata.OrderEnforced {
		t.line("Order: containers start in the order below")
	} else {
		t.line("Order: containers may start in any order")
	}
	var loose []string
	for what, level := range map[string]policydata.Level{
		"annotations": p.Strict.Annotations, "container ids": p.Strict.ContainerID, "environment": p.Strict.Env,
		"environment of commands": p.Strict.ExecEnv, "image": p.Strict.Image, "number of instances": p.Strict.Instances,
		"lifecycle": p.Strict.Lifecycle, "mounts": p.Strict.Mounts, "masked paths": p.Strict.Paths,
		"storages": p.Strict.Storages, "sysctls": p.Strict.Sysctl,
	} {
		if level != policydata.Required {
			loose = append(loose, fmt.Sprintf("%s (%s)", what, level))
		}
	}
	slices.Sort(loose)
	if len(loose) > 0 {
		t.line("Relaxed: %s", strings.Join(loose, ", "))
	}
}

// order returns the containers' names as they start: the sandbox, then by what
// they wait for, then by name.
func order(p *policydata.Policy) []string {
	var out []string
	var visit func(string)
	visit = func(name string) {
		if slices.Contains(out, name) || p.Containers[name] == nil || len(out) > len(p.Containers) {
			return
		}
		for _, step := range p.Containers[name].After {
			if step.Container != name {
				visit(step.Container)
			}
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	if len(p.Containers) > 0 {
		visit(policydata.SandboxContainer)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Containers)) {
		visit(name)
	}
	return out
}

func (t *page) container(p *policydata.Policy, name string) {
	c := p.Containers[name]
	t.line("")
	if c.Type == policydata.TypeSandbox {
		t.line("Container of the sandbox (pause)")
	} else {
		t.line("Container %s", name)
	}
	if c.Image.Source != "" {
		t.line("  image: %s (%s)", strings.Join(append([]string{c.Image.Source}, c.Image.Also...), ", also called "), c.Image.From)
	}
	t.line("  runs: %s", strings.Join(arguments(c), " "))
	t.line("  in: %s, as user %d, group %d, groups %s", c.Cwd, c.OCI.Process.User.UID, c.OCI.Process.User.GID, numbers(c.OCI.Process.User.AdditionalGids))
	t.item("rights", rights(p, c))
	t.item("environment", environment(c))
	t.item("mounts", mounts(c))
	t.item("block devices", c.Devices)
	if c.VFIO.Count > 0 {
		t.line("  passed-through devices: %d", c.VFIO.Count)
	}
	for _, command := range c.Exec {
		t.line("  may also run: %s", strings.Join(quoted(command), " "))
	}
	for _, step := range c.After {
		if p.Order == policydata.OrderEnforced {
			t.line("  only after %s has %s", step.Container, step.State)
		}
	}
}

func arguments(c *policydata.Container) []string {
	args := quoted(c.Args)
	for i := range args {
		m, ok := c.ArgMatches[fmt.Sprint(i)]
		switch {
		case ok && m.Template != "":
			args[i] = fmt.Sprintf("%q", m.Template)
		case ok:
			args[i] = "<" + unanchored(m.Pattern) + ">"
		}
	}
	return args
}

// quoted quotes arguments that a reader could take for several or for none.
func quoted(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = a
		if a == "" || strings.ContainsFunc(a, func(r rune) bool { return r <= ' ' || r == '"' || r > '~' }) {
			out[i] = fmt.Sprintf("%q", a)
		}
	}
	return out
}

func rights(p *policydata.Policy, c *policydata.Container) []string {
	var out []string
	if caps := p.Common.Capabilities[c.Capabilities].Bounding; len(caps) == 0 {
		out = append(out, "no capabilities")
	} else {
		out = append(out, fmt.Sprintf("%d capabilities (%s)", len(caps), c.Capabilities))
	}
	for what, on := range map[string]bool{
		"may gain privileges": !c.NoNewPrivs, "read-only root filesystem": c.ReadonlyRoot, "nothing of /proc masked": len(p.Common.Paths[c.Paths].Masked) == 0,
		"terminal": c.Terminal, "stdin from the host": c.Stdin, "sees the pod's processes": c.PIDNS,
	} {
		if on {
			out = append(out, what)
		}
	}
	slices.Sort(out[1:])
	return out
}

// environment lists names, and what a value is made of at run time. The values
// themselves may hold secrets, and so may the rest of a template or pattern.
func environment(c *policydata.Container) []string {
	var out []string
	for _, entry := range c.Env.Fixed {
		name, _, _ := strings.Cut(entry, "=")
		out = append(out, name)
	}
	for name, template := range c.Env.Templates {
		out = append(out, fmt.Sprintf("%s (%s)", name, parts(template)))
	}
	for name := range c.Env.Hashes {
		out = append(out, name+" (by the hash of its value)")
	}
	links := 0
	for name := range c.Env.Patterns {
		if strings.HasPrefix(name, "KUBERNETES_") {
			links++
			continue
		}
		out = append(out, name+" (by pattern)")
	}
	if links > 0 {
		out = append(out, fmt.Sprintf("KUBERNETES_… (%d that say where the API server is)", links))
	}
	for name := range c.Env.Optional {
		out = append(out, name+" (may be missing)")
	}
	slices.Sort(out)
	return out
}

// parts says which facts of the pod a template holds.
func parts(template string) string {
	var names []string
	rest := template
	for _, fact := range [][2]string{{"$(sandbox-name)", "the pod's name"}, {"$(sandbox-namespace)", "the pod's namespace"}, {"$(sandbox-uid)", "the pod's UID"}} {
		if strings.Contains(template, fact[0]) {
			names, rest = append(names, fact[1]), strings.ReplaceAll(rest, fact[0], "")
		}
	}
	if rest != "" {
		return "with " + strings.Join(names, ", ")
	}
	return strings.Join(names, ", ")
}

func mounts(c *policydata.Container) []string {
	var out []string
	for _, destination := range slices.Sorted(maps.Keys(c.Mounts)) {
		m := c.Mounts[destination]
		if m.Type == "sysfs" || m.Type == "cgroup" {
			continue
		}
		text := destination + " ("
		switch {
		case m.From == policydata.MountStorage:
			text += "storage of the guest"
		case m.From == policydata.MountExact:
			text += m.Source
		case m.Contents.Bound():
			text += "from the host, content bound"
		case m.Contents != nil && !m.Contents.Open:
			text += "from the host, content bound but for " + strings.Join(m.Contents.Unknown(), ", ")
		default:
			text += "from the host"
		}
		if !slices.Contains(m.Options, "rw") && m.From != policydata.MountExact {
			text += ", read-only"
		}
		if m.MayBeMissing {
			text += ", may be missing"
		}
		out = append(out, text+")")
	}
	return out
}

// requests says what the host may do to running containers.
func (t *page) requests(p *policydata.Policy) {
	r := p.Requests
	t.line("")
	t.line("The host may also")
	count := t.Len()
	for _, s := range []struct {
		on   bool
		text string
	}{
		{r.ReadStream, "read what containers print"},
		{r.WriteStream, "write to the stdin of every process"},
		{r.GetDiagnosticData, "read diagnostic data"},
		{r.UpdateEphemeralMounts, "update ephemeral mounts"},
	} {
		if s.on {
			t.line("  - %s", s.text)
		}
	}
	for _, command := range r.Exec.Commands {
		t.line("  - run in any container: %s", strings.Join(quoted(command), " "))
	}
	for _, pattern := range r.Exec.Joined {
		t.line("  - run in any container what matches %s", unanchored(pattern))
	}
	for _, name := range r.Allow {
		t.line("  - send %s", name)
	}
	if t.Len() == count {
		t.line("  - do nothing beyond starting, signalling and removing these containers, and copying their files")
	}
}

func numbers(list []uint32) string {
	if len(list) == 0 {
		return "none"
	}
	out := make([]string, len(list))
	for i, n := range list {
		out[i] = fmt.Sprint(n)
	}
	return strings.Join(out, " ")
}

func unanchored(pattern string) string {
	return strings.TrimSuffix(strings.TrimPrefix(pattern, "^"), "$")
}
