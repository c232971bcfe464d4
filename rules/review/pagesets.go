// SPDX-License-Identifier: Apache-2.0

package review

import (
	"slices"
	"strings"

	"portcullis/rules"
	"portcullis/rules/policydata"
)

// setLinks point from a container to the sets that it shares with others.
func (s *Subject) setLinks(c *policydata.Container) []setLink {
	return []setLink{
		{"capabilities: " + Called(c.Capabilities), anchor("capabilities", c.Capabilities)},
		{"usual mounts: " + Called(c.BaseMounts), anchor("mounts", c.BaseMounts)},
		{"masked paths: " + Called(c.Paths), anchor("paths", c.Paths)},
	}
}

var (
	mountColumns = []string{"At", "From", "Access"}
	envColumns   = []string{"Variable", "Value", "Kind"}
)

// Where rows that every container has are stated.
const (
	everyEnv    = "every-variable"
	everyMounts = "every-mount"
)

// shareRows takes what every container but the sandbox has out of each of them: it is stated once.
func shareRows(containers []containerRow) []setRows {
	var list []*containerRow
	for i := range containers {
		if !containers[i].Sandbox {
			list = append(list, &containers[i])
		}
	}
	if len(list) < 2 {
		return nil
	}
	env := slices.DeleteFunc(slices.Clone(list[0].Env), func(r row) bool {
		return slices.ContainsFunc(list, func(c *containerRow) bool { return !slices.Contains(c.Env, r) })
	})
	mounts := slices.DeleteFunc(slices.Clone(list[0].Mounts), func(r row) bool {
		return slices.ContainsFunc(list, func(c *containerRow) bool { return !slices.Contains(c.Mounts, r) })
	})
	for _, c := range list {
		c.Env, c.UsualEnv = rowsWithout(c.Env, env), len(env)
		c.Mounts, c.UsualMounts = rowsWithout(c.Mounts, mounts), len(mounts)
	}
	var out []setRows
	if len(env) > 0 {
		out = append(out, setRows{Title: "Variables of every container", Anchor: everyEnv, Columns: envColumns, Rows: env})
	}
	if len(mounts) > 0 {
		out = append(out, setRows{Title: "Mounts of every container", Anchor: everyMounts, Columns: mountColumns, Rows: mounts})
	}
	return out
}

func rowsWithout(rows, taken []row) []row {
	return slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return slices.Contains(taken, r) })
}

// sets are what containers share: stated once.
func (s *Subject) sets() []setRows {
	var out []setRows
	used := s.usedSets()
	for _, name := range sorted(s.Data.Common.Capabilities) {
		if at := anchor("capabilities", name); used[at] {
			out = append(out, setRows{Title: "Capabilities: " + Called(name), Anchor: at, Lines: capabilityLines(s.Data.Common.Capabilities[name])})
		}
	}
	for _, name := range sorted(s.Data.Common.Mounts) {
		at := anchor("mounts", name)
		if !used[at] {
			continue
		}
		set := setRows{Title: "Usual mounts: " + Called(name), Anchor: at, Columns: mountColumns}
		for _, m := range s.Data.Common.Mounts[name] {
			set.Rows = append(set.Rows, row{m.Destination, m.Source, access(m.Options)})
		}
		out = append(out, set)
	}
	for _, name := range sorted(s.Data.Common.Paths) {
		if at := anchor("paths", name); used[at] {
			out = append(out, setRows{Title: "Masked paths: " + Called(name), Anchor: at, Lines: pathLines(s.Data.Common.Paths[name])})
		}
	}
	return out
}

func (s *Subject) usedSets() map[string]bool {
	used := map[string]bool{}
	for _, c := range s.Data.Containers {
		for _, link := range s.setLinks(c) {
			used[link.Anchor] = true
		}
	}
	return used
}

// capabilityLines state the five sets, those that are alike together.
func capabilityLines(c policydata.Capabilities) []string {
	var order []string
	sets := map[string][]string{}
	for _, set := range setsOf(c) {
		names := slices.Sorted(slices.Values(set.names))
		for i := range names {
			names[i] = strings.TrimPrefix(names[i], "CAP_")
		}
		key := strings.Join(names, ", ")
		if key == "" {
			key = "none"
		}
		if _, ok := sets[key]; !ok {
			order = append(order, key)
		}
		sets[key] = append(sets[key], set.name)
	}
	var lines []string
	for _, key := range order {
		lines = append(lines, strings.Join(sets[key], ", ")+": "+key)
	}
	return lines
}

func pathLines(p policydata.Paths) []string {
	line := func(title string, paths []string) string {
		if len(paths) == 0 {
			return title + ": none"
		}
		return title + ": " + strings.Join(paths, ", ")
	}
	lines := []string{line("masked", p.Masked), line("read-only or masked", p.Readonly)}
	if len(p.Optional) > 0 {
		lines = append(lines, line("may be masked too", p.Optional))
	}
	return lines
}

// hostRows is the written list of what the host may choose, by request.
func hostRows() []hostRow {
	var out []hostRow
	for _, item := range rules.HostChosenFields() {
		i := slices.IndexFunc(out, func(r hostRow) bool { return r.Request == item.Request })
		if i < 0 {
			out = append(out, hostRow{Request: item.Request})
			i = len(out) - 1
		}
		out[i].Items = append(out[i].Items, item)
	}
	return out
}

func traced(o PageOptions) *traceRows {
	t := &traceRows{Name: o.Trace, Decisions: o.Decisions, Omitted: o.Omitted}
	for _, d := range o.Decisions {
		switch {
		case d.Allowed:
			t.Allowed += d.Count
		case d.Unknown != "":
			t.Unknown += d.Count
		default:
			t.Denied += d.Count
		}
	}
	return t
}

// knownPatterns are patterns of the settings and the generator in words.
var knownPatterns = map[string]string{
	"^.*$": "anything", "^(?s:.*)$": "anything", "^(?s:.+)$": "anything but nothing", "^.+$": "anything but nothing",
	"^[0-9]+$": "a number", "^[0-9.]+$": "an IPv4 address", "^[0-9a-f.:]+$": "an IP address", "^xterm$": "xterm",
	"^[0-9a-f.:,]+$": "IP addresses", "^tcp$": "tcp",
}

// patternWords says what a pattern matches, or shows it by way of otherwise.
func patternWords(pattern string, otherwise func(string) string) string {
	if words, ok := knownPatterns[pattern]; ok {
		return words
	}
	return otherwise(pattern)
}
