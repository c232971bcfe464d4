// SPDX-License-Identifier: Apache-2.0

package review

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"portcullis/rules/policydata"
)

// WriteText writes what a policy, called name, lets the containers of a pod do, in words, to w. What the policy leaves unbound comes
// first. Values of environment variables are not printed: they may be secrets.
func WriteText(w io.Writer, name string, p *policydata.Policy) error {
	var t text
	t.line("Policy of %s", name)
	t.unbound(p)
	t.pod(p)
	for _, c := range inOrder(p) {
		t.container(p, c)
	}
	t.requests(p)
	_, err := io.WriteString(w, t.String())
	return err
}

// text is an explanation under construction.
type text struct{ strings.Builder }

func (t *text) line(format string, args ...any) {
	t.WriteString(Printable(fmt.Sprintf(format, args...)) + "\n")
}

// unbound lists what a reviewer has to know first: what the report of policyctl says too.
func (t *text) unbound(p *policydata.Policy) {
	found := Of(p)
	if !slices.ContainsFunc(found, func(w Warning) bool { return w.Level == Grave }) {
		t.line("Everything that runs is bound.")
	}
	for _, level := range []struct {
		level Level
		title string
		mark  string
	}{{Grave, "Grave:", "!"}, {Look, "To look at:", "?"}, {Note, "Notes:", "-"}} {
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
				about = Called(w.Container) + ": "
			}
			t.line("  %s %s%s", level.mark, about, w.Text)
		}
	}
}

func (t *text) pod(p *policydata.Policy) {
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

// inOrder returns the containers' names as they start: the sandbox, then by what they wait for, then by name.
func inOrder(p *policydata.Policy) []string {
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
	for _, name := range sorted(p.Containers) {
		visit(name)
	}
	return out
}

func (t *text) container(p *policydata.Policy, name string) {
	c, said := p.Containers[name], sayContainer(p, name, false)
	t.line("")
	if c.Type == policydata.TypeSandbox {
		t.line("Container of the sandbox (pause)")
	} else {
		t.line("Container %s", name)
	}
	for _, f := range said.facts() {
		t.item(f.Topic, f.Rows)
	}
	t.line("  capabilities: %d (%s)", len(p.Common.Capabilities[c.Capabilities].Bounding), c.Capabilities)
	for _, topic := range []topic{topicVariables, topicMounts} {
		t.item(topic, said.rows(topic))
	}
}

// item writes what is said under a topic as one line.
func (t *text) item(topic topic, rows []row) {
	var items []string
	for _, r := range rows {
		what := or(r.Name, r.Value, r.Name == "")
		note := r.Note
		switch {
		case topic == topicVariables && r.Note == "fixed":
			note = ""
		case topic == topicVariables && r.Note == "from the pod", r.Name == "KUBERNETES_…":
			note = r.Value
		case topic == topicMounts:
			note = r.Value + ", " + r.Note
		case what == "":
			what, note = note, ""
		}
		items = append(items, what+or(" ("+note+")", "", note == ""))
	}
	between := "; "
	if topic == topicVariables || topic == topicMounts {
		between = ", "
	}
	if len(items) > 0 {
		t.line("  %s: %s", strings.ToLower(string(topic)), strings.Join(items, between))
	}
}

// requests says what the host may do to running containers.
func (t *text) requests(p *policydata.Policy) {
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
		t.line("  - run in any container: %s", commandLine(command))
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

func unanchored(pattern string) string {
	return strings.TrimSuffix(strings.TrimPrefix(pattern, "^"), "$")
}
