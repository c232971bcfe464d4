// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// compare holds a request against a container of policy_data in upstream's shape, which mirrors the request. A value with a
// placeholder is left out, and so is one that the data states as a pattern that matches: which rule reads what is not known here,
// so that this is a list of suspects.
func compare(container, input any) []Finding {
	var out []Finding
	add := func(path string, wanted, got any) {
		if !fits(wanted, got) {
			out = append(out, Finding{Path: path, Wanted: wanted, Got: got})
		}
	}
	for _, path := range []string{
		"OCI.Version", "OCI.Root.Readonly", "OCI.Process.Terminal", "OCI.Process.Cwd", "OCI.Process.NoNewPrivileges",
		"OCI.Process.User.UID", "OCI.Process.User.GID", "OCI.Process.User.Username", "sandbox_pidns",
	} {
		keys := strings.Split(path, ".")
		if wanted := at(container, keys...); wanted != nil {
			add(path, wanted, at(input, keys...))
		}
	}
	for _, path := range []string{
		"OCI.Process.User.AdditionalGids", "OCI.Process.Args", "OCI.Linux.MaskedPaths", "OCI.Linux.ReadonlyPaths",
		"OCI.Process.Capabilities.Ambient", "OCI.Process.Capabilities.Bounding", "OCI.Process.Capabilities.Effective",
		"OCI.Process.Capabilities.Inheritable", "OCI.Process.Capabilities.Permitted",
	} {
		keys := strings.Split(path, ".")
		out = append(out, compareLists(path, list(at(container, keys...)), list(at(input, keys...)))...)
	}
	if hooks := at(input, "OCI", "Hooks"); hooks != nil {
		add("OCI.Hooks", nil, hooks)
	}
	out = append(out, compareEnv(container, input)...)
	out = append(out, compareMounts(container, input)...)
	out = append(out, compareMaps("OCI.Annotations", at(container, "OCI", "Annotations"), at(input, "OCI", "Annotations"))...)
	out = append(out, compareSysctl(at(container, "OCI", "Linux", "Sysctl"), at(input, "OCI", "Linux", "Sysctl"))...)
	out = append(out, compareNamed("OCI.Linux.Namespaces", "Type", at(container, "OCI", "Linux", "Namespaces"), at(input, "OCI", "Linux", "Namespaces"))...)
	out = append(out, compareNamed("OCI.Linux.Devices", "Path", at(container, "OCI", "Linux", "Devices"), at(input, "OCI", "Linux", "Devices"))...)
	return append(out, compareNamed("devices", "container_path", at(container, "devices"), at(input, "devices"))...)
}

// fits is equality, but for patterns and placeholders in the wanted value.
func fits(wanted, got any) bool {
	if same(wanted, got) {
		return true
	}
	w, ok := wanted.(string)
	g, isText := got.(string)
	if !ok || !isText {
		return false
	}
	if strings.Contains(w, "$(") {
		return true
	}
	if strings.HasPrefix(w, "^") {
		matched, err := regexp.MatchString(w, g)
		return err != nil || matched
	}
	return false
}

func compareLists(path string, wanted, got []any) []Finding {
	if len(wanted) == 1 && strings.HasPrefix(text(wanted[0]), "$(") {
		return nil
	}
	if len(wanted) != len(got) {
		return []Finding{compareSets(Finding{Path: path}, wanted, got)}
	}
	var out []Finding
	for i := range wanted {
		if !fits(wanted[i], got[i]) {
			out = append(out, Finding{Path: fmt.Sprintf("%s[%d]", path, i), Wanted: wanted[i], Got: got[i]})
		}
	}
	return out
}

// compareSets words the difference of two lists: order matters to arguments
// alone, and of long lists only what differs is of interest.
func compareSets(f Finding, wanted, got []any) Finding {
	more, fewer := without(texts(got), texts(wanted)), without(texts(wanted), texts(got))
	switch {
	case inOrder.MatchString(f.Path) || len(wanted) < 4:
	case len(more) > 0:
		f.Wanted, f.Got = Phrase("without "+strings.Join(more, ", ")), Phrase("with "+strings.Join(more, ", "))
		return f
	case len(fewer) > 0:
		f.Wanted, f.Got = Phrase("with "+strings.Join(fewer, ", ")), Phrase("without "+strings.Join(fewer, ", "))
		return f
	}
	f.Wanted, f.Got = wanted, got
	return f
}

func compareEnv(container, input any) []Finding {
	wanted := map[string]string{}
	for _, entry := range texts(at(container, "OCI", "Process", "Env")) {
		name, value, _ := strings.Cut(entry, "=")
		wanted[name] = value
	}
	var out []Finding
	seen := map[string]bool{}
	for _, entry := range texts(at(input, "OCI", "Process", "Env")) {
		name, value, _ := strings.Cut(entry, "=")
		path := "OCI.Process.Env[" + name + "]"
		switch w, known := wanted[name]; {
		case seen[name]:
			out = append(out, Finding{Path: path, Wanted: once, Got: twice})
		case !known:
			out = append(out, Finding{Path: path, Wanted: Phrase("no such variable"), Got: value, Secret: true})
		case !fits(w, value):
			out = append(out, Finding{Path: path, Wanted: w, Got: value, Secret: true})
		}
		seen[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if !seen[name] {
			out = append(out, Finding{Path: "OCI.Process.Env[" + name + "]", Wanted: wanted[name], Got: missing, Secret: true})
		}
	}
	return out
}

func compareMounts(container, input any) []Finding {
	wanted := map[string][]any{}
	for _, m := range list(at(container, "OCI", "Mounts")) {
		destination := text(at(m, "destination"))
		wanted[destination] = append(wanted[destination], m)
	}
	var out []Finding
	for _, m := range list(at(input, "OCI", "Mounts")) {
		destination := text(at(m, "destination"))
		path := "OCI.Mounts[" + destination + "]"
		alternatives := wanted[destination]
		if len(alternatives) == 0 {
			out = append(out, Finding{Path: path, Wanted: Phrase("no such mount"), Got: at(m, "source")})
			continue
		}
		diff := mountDiff(path, alternatives[0], m)
		for _, w := range alternatives[1:] {
			if d := mountDiff(path, w, m); len(d) < len(diff) {
				diff = d
			}
		}
		out = append(out, diff...)
	}
	for _, destination := range slices.Sorted(maps.Keys(wanted)) {
		if !slices.ContainsFunc(list(at(input, "OCI", "Mounts")), func(m any) bool { return text(at(m, "destination")) == destination }) {
			out = append(out, Finding{Path: "OCI.Mounts[" + destination + "]", Wanted: at(wanted[destination][0], "source"), Got: missing})
		}
	}
	return out
}

func mountDiff(path string, wanted, got any) []Finding {
	var out []Finding
	for _, key := range []string{"type_", "options", "source"} {
		if w, g := at(wanted, key), at(got, key); !fits(w, g) && !(key == "source" && w == "") {
			out = append(out, Finding{Path: path + "." + key, Wanted: w, Got: g})
		}
	}
	return out
}

func compareMaps(path string, wanted, got any) []Finding {
	var out []Finding
	for _, key := range slices.Sorted(maps.Keys(object(wanted))) {
		value, has := object(got)[key]
		switch {
		case !has && object(wanted)[key] != "":
			out = append(out, Finding{Path: path + "[" + key + "]", Wanted: object(wanted)[key], Got: missing})
		case has && !fits(object(wanted)[key], value) && object(wanted)[key] != "":
			out = append(out, Finding{Path: path + "[" + key + "]", Wanted: object(wanted)[key], Got: value})
		}
	}
	return out
}

func compareSysctl(wanted, got any) []Finding {
	var out []Finding
	for _, key := range slices.Sorted(maps.Keys(object(got))) {
		if _, known := object(wanted)[key]; !known {
			out = append(out, Finding{Path: "OCI.Linux.Sysctl[" + key + "]", Wanted: Phrase("no such sysctl"), Got: object(got)[key]})
		}
	}
	return append(out, compareMaps("OCI.Linux.Sysctl", wanted, got)...)
}

// compareNamed compares lists of objects by one field, in any order.
func compareNamed(path, field string, wanted, got any) []Finding {
	names := func(v any) (out []string) {
		for _, item := range list(v) {
			out = append(out, text(at(item, field)))
		}
		return out
	}
	w, g := names(wanted), names(got)
	if len(without(w, g)) == 0 && len(without(g, w)) == 0 {
		return nil
	}
	if len(without(g, w)) == 0 && len(g) > 0 && path == "OCI.Linux.Namespaces" {
		return []Finding{{Path: path, Wanted: w, Got: g}}
	}
	if extra := without(g, w); path == "OCI.Linux.Namespaces" && len(without(w, g)) == 0 && len(without(extra, []string{"network", "cgroup"})) == 0 {
		return nil
	}
	return []Finding{{Path: path, Wanted: w, Got: g}}
}
