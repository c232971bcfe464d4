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

// environment is what a policy says of the variables of one container.
type environment struct {
	*policydata.Env
	common policydata.EnvPatterns
	level  policydata.Level // optional: none has to be there
}

// compareEnv compares variables by name: what each may hold, and which have to be there.
func compareEnv(c *comparison) {
	c.each(func(k container) {
		a := environment{&k.a.Env, c.a.Common.Env, c.a.Strict.Env}
		b := environment{&k.b.Env, c.b.Common.Env, c.b.Strict.Env}
		k.environments(a, b, func(change func(env []any) []any) attempt {
			return k.create(func(i map[string]any) { process(i)["Env"] = append([]any{}, change(list(process(i), "Env"))...) })
		})
	})
}

// compareExecEnv: the same variables, but whether they have to be there is another word of the policy's. Only that is left to
// compare.
func compareExecEnv(c *comparison) {
	c.each(func(k container) {
		if command := k.command(); command != nil {
			a := environment{&k.a.Env, c.a.Common.Env, c.a.Strict.ExecEnv}
			b := environment{&k.b.Env, c.b.Common.Env, c.b.Strict.ExecEnv}
			k.required(a, b, func(change func(env []any) []any) attempt {
				return k.exec(command, func(i map[string]any) {
					object(i, "process")["Env"] = append([]any{}, change(list(object(i, "process"), "Env"))...)
				})
			})
		}
	})
}

// command is one that b allows in the container, nil if there is none.
func (k container) command() []string {
	for _, commands := range [][][]string{k.b.Exec, k.comparison.b.Requests.Exec.Commands} {
		if len(commands) > 0 {
			return commands[0]
		}
	}
	for _, pattern := range k.comparison.b.Requests.Exec.Joined {
		return []string{rulestest.Example(pattern)}
	}
	return nil
}

// exec is an attempt at running a command in the container.
func (k container) exec(argv []string, change func(input map[string]any)) attempt {
	return attempt{container: k.name, then: func(string) []rulestest.Request {
		r := plain(emulator(k.comparison.b).ExecProcess(k.name, argv))
		change(r.Input)
		return []rulestest.Request{r}
	}}
}

// tries makes an attempt from a change of the environment.
type tries func(change func(env []any) []any) attempt

func (k container) environments(a, b environment, try tries) {
	names := mentioned(a, b)
	for _, name := range names {
		if va, vb := a.fixedValue(name), b.fixedValue(name); va != nil && vb != nil && *va == *vb {
			continue
		}
		hashA, boundA := a.Hashes[name]
		hashB, boundB := b.Hashes[name]
		if boundA || boundB {
			if boundA != boundB || hashA != hashB {
				k.differ(k.at("env."+name), "is bound by a hash in one, and not by the same in the other",
					append(k.unbound(b, name, try), k.start())...)
			}
			continue
		}
		k.hidden(k.at("env."+name), k.values(a, name, false), k.values(b, name, true), func(example string) (string, []attempt) {
			return "has a value in one that it may not have in the other", []attempt{try(with(name, name+"="+example)), k.start()}
		})
	}
	k.within("common.env.whole", k.patterns(a.common.Whole), k.patterns(b.common.Whole).Minus(k.named(names)),
		func(example string) []attempt {
			name, _, _ := strings.Cut(example, "=")
			return []attempt{try(with(name, example))}
		})
	for _, entry := range lacking(a.Shadowed, b.Shadowed) {
		name, _, _ := strings.Cut(entry, "=")
		k.differ(k.at("env.shadowed"), fmt.Sprintf("%s of the image may come before the pod's own in one only", name),
			try(func(env []any) []any { return append([]any{entry}, env...) }))
	}
	k.required(a, b, try)
	k.spaced(a, b, names, try)
}

// unbound are attempts at a variable of which b has no hash.
func (k container) unbound(b environment, name string, try tries) []attempt {
	if _, bound := b.Hashes[name]; bound {
		return nil
	}
	value, found, err := k.values(b, name, true).Example()
	if !found || err != nil {
		return nil
	}
	return []attempt{try(with(name, name+"="+value))}
}

// spaced looks for variables with a space in their names. The rules look for names of fixed variables among them in a way that
// takes such a name for two, but not among those that have to be there and match their pattern.
func (k container) spaced(a, b environment, names []string, try tries) {
	if same(a.Fixed, b.Fixed) && same(a.Templates, b.Templates) && same(a.Patterns, b.Patterns) {
		return
	}
	by := k.pattern(`\A[^=]* `)
	entry, found, err := language.Intersection(k.patterns(b.common.Whole), by).Example()
	for _, name := range names {
		if strings.Contains(name, " ") {
			value, _, _ := k.values(b, name, true).Example()
			entry, found = name+"="+value, true
		}
	}
	if found || err != nil {
		name, _, _ := strings.Cut(entry, "=")
		k.differ(k.at("env"), "may have names with a space in them", try(with(name, entry)))
	}
}

// named are the entries of these variables, whatever they hold.
func (c *comparison) named(names []string) language.Set {
	if len(names) == 0 {
		return language.Set{}
	}
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = regexp.QuoteMeta(name)
	}
	return c.pattern(`\A(?:` + strings.Join(quoted, "|") + `)=`)
}

// with is an environment with one variable set.
func with(name, entry string) func(env []any) []any {
	return func(env []any) []any { return append(unset(name)(env), entry) }
}

func unset(name string) func(env []any) []any {
	return func(env []any) []any {
		var out []any
		for _, entry := range env {
			if text, ok := entry.(string); !ok || !strings.HasPrefix(text, name+"=") {
				out = append(out, entry)
			}
		}
		return out
	}
}

// required: what a demands has to be sure to be there under b.
func (k container) required(a, b environment, try tries) {
	if a.level == policydata.Optional {
		return
	}
	sure := map[string]bool{}
	if b.level != policydata.Optional {
		for _, name := range b.names() {
			sure[name] = true
		}
	}
	for _, name := range a.names() {
		if !sure[name] {
			k.differ(k.at("env."+name), "has to be there in one only", try(unset(name)))
		}
	}
}

// names are those of the variables that have to be there.
func (e environment) names() []string {
	out := slices.Concat(slices.Collect(maps.Keys(e.Patterns)), slices.Collect(maps.Keys(e.Templates)), slices.Collect(maps.Keys(e.Hashes)))
	for _, entry := range e.Fixed {
		name, _, _ := strings.Cut(entry, "=")
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// fixedValue is the value that is fixed for a name, nil if none is.
func (e environment) fixedValue(name string) *value {
	if template, ok := e.Templates[name]; ok {
		return &value{template: template}
	}
	for _, entry := range e.Fixed {
		if text, ok := strings.CutPrefix(entry, name+"="); ok {
			return &value{literal: text}
		}
	}
	return nil
}

// values are those that a variable may have. What is fixed excludes everything else.
func (k container) values(e environment, name string, possible bool) language.Set {
	if v := e.fixedValue(name); v != nil {
		return k.valueOf(*v, possible)
	}
	var sets []language.Set
	for _, patterns := range []map[string]string{e.common.Names, e.Optional, e.Patterns} {
		if pattern, ok := patterns[name]; ok {
			sets = append(sets[:0], k.pattern(pattern)) // as object.union_n: the last counts
		}
	}
	if len(sets) == 0 {
		sets = []language.Set{k.patterns(e.common.Whole).After(name + "=")}
	}
	return language.Union(sets...)
}

// mentioned are the names that either says something of.
func mentioned(environments ...environment) []string {
	var out []string
	for _, e := range environments {
		out = slices.Concat(out, e.names(), slices.Collect(maps.Keys(e.Optional)), slices.Collect(maps.Keys(e.common.Names)))
	}
	slices.Sort(out)
	return slices.Compact(out)
}
