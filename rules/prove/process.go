// SPDX-License-Identifier: Apache-2.0

package prove

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"portcullis/internal/rulestest"
	"portcullis/rules/policydata"
	"portcullis/rules/prove/language"
)

// compareNames: a container that only b has.
func compareNames(c *comparison) {
	for name := range c.b.Containers {
		if c.a.Containers[name] == nil {
			c.differ("containers["+name+"]", "only one of the policies has it", attempt{container: name})
		}
	}
}

func compareType(c *comparison) {
	c.each(func(k container) {
		k.equal("type", k.a.Type, k.b.Type)
		k.equal("pidns", k.a.PIDNS, k.b.PIDNS)
	})
}

// compareProcess: what has to be equal but for the lists of profiles and versions, and of users.
func compareProcess(c *comparison) {
	for _, l := range []struct {
		path   string
		a, b   []string
		change func(input map[string]any, value string)
	}{
		{"common.apparmor", c.a.Common.AppArmor, c.b.Common.AppArmor, func(i map[string]any, v string) { process(i)["ApparmorProfile"] = v }},
		{"common.oci_versions", c.a.Common.OCIVersions, c.b.Common.OCIVersions, func(i map[string]any, v string) { object(i, "OCI")["Version"] = v }},
	} {
		for _, value := range lacking(l.a, l.b) {
			c.differ(l.path, fmt.Sprintf("%q is in one list only", value), c.anyContainer(func(i map[string]any) { l.change(i, value) })...)
		}
	}
	c.each(func(k container) {
		k.equal("cwd", k.a.Cwd, k.b.Cwd)
		k.equal("no_new_privileges", k.a.NoNewPrivs, k.b.NoNewPrivs)
		k.equal("terminal", k.a.Terminal, k.b.Terminal)
		has := append([]policydata.User{k.a.OCI.Process.User}, k.a.OtherUsers...)
		for _, user := range append([]policydata.User{k.b.OCI.Process.User}, k.b.OtherUsers...) {
			if !slices.ContainsFunc(has, func(other policydata.User) bool { return sameUser(user, other) }) {
				k.differ(k.at("OCI.Process.User"), fmt.Sprintf("%d:%d with groups %v is allowed by one only", user.UID, user.GID, user.AdditionalGids),
					k.create(func(i map[string]any) { process(i)["User"] = userInput(user) }))
			}
		}
	})
}

func sameUser(a, b policydata.User) bool {
	return a.UID == b.UID && a.GID == b.GID && a.Username == b.Username && same(a.AdditionalGids, b.AdditionalGids)
}

func userInput(u policydata.User) map[string]any {
	return map[string]any{"UID": u.UID, "GID": u.GID, "Username": u.Username, "AdditionalGids": items(u.AdditionalGids)}
}

// anyContainer are attempts at each container of b.
func (c *comparison) anyContainer(change func(input map[string]any)) []attempt {
	var out []attempt
	c.each(func(k container) { out = append(out, k.create(change)) })
	return out
}

// compareArgs: argument by argument, each a literal, a pattern or a template.
func compareArgs(c *comparison) {
	c.each(func(k container) {
		if len(k.a.Args) != len(k.b.Args) {
			k.differ(k.at("args"), fmt.Sprintf("one has %d arguments and the other %d", len(k.a.Args), len(k.b.Args)), k.start())
			return
		}
		for i := range k.b.Args {
			a, b := k.arg(k.a, i), k.arg(k.b, i)
			if a == b {
				continue
			}
			k.within(k.at(fmt.Sprintf("args[%d]", i)), k.valueOf(a, false), k.valueOf(b, true), func(example string) []attempt {
				return []attempt{k.create(func(input map[string]any) { list(process(input), "Args")[i] = example }), k.start()}
			})
		}
	})
}

// value is what stands at a place: one of a literal, a pattern, a template.
type value struct{ literal, pattern, template string }

func (c *comparison) arg(k *policydata.Container, i int) value {
	m, ok := k.ArgMatches[strconv.Itoa(i)]
	if !ok {
		return value{literal: k.Args[i]}
	}
	return value{pattern: m.Pattern, template: m.Template}
}

// valueOf is the language of a value. A template stands for every string that it may become if possible is true, and for none
// otherwise: what it becomes depends on the pod, which only an equal template follows.
func (c *comparison) valueOf(v value, possible bool) language.Set {
	switch {
	case v.pattern != "":
		return c.pattern(v.pattern)
	case v.template != "" && !possible:
		if !placeholder.MatchString(v.template) {
			return language.Literals(v.template)
		}
		return language.Set{}
	case v.template != "":
		return c.pattern(c.templatePattern(v.template))
	}
	return language.Literals(v.literal)
}

var placeholder = regexp.MustCompile(`\$\(sandbox-(?:name|namespace|uid)\)`)

// templatePattern matches what a template of b becomes with any pod that b allows.
func (c *comparison) templatePattern(template string) string {
	namespace := `[a-z0-9][a-z0-9-]*`
	if c.b.Sandbox.Namespace != "" {
		namespace = regexp.QuoteMeta(c.b.Sandbox.Namespace)
	}
	with := map[string]string{
		"$(sandbox-name)":      within(c.b.Sandbox.Name),
		"$(sandbox-namespace)": namespace,
		"$(sandbox-uid)":       `[0-9a-f-]*`,
	}
	var out strings.Builder
	out.WriteString(`\A`)
	last := 0
	for _, at := range placeholder.FindAllStringIndex(template, -1) {
		out.WriteString(regexp.QuoteMeta(template[last:at[0]]) + with[template[at[0]:at[1]]])
		last = at[1]
	}
	out.WriteString(regexp.QuoteMeta(template[last:]) + `\z`)
	return out.String()
}

// within is a pattern without its anchors, to stand within another. One that looks at what is around it by other means stands for
// any string.
func within(pattern string) string {
	const any = `(?s:.*)`
	bare, begins := strings.CutPrefix(pattern, "^")
	bare, ends := strings.CutSuffix(bare, "$")
	re, err := syntax.Parse(pattern, syntax.Perl)
	if !begins || !ends || err != nil || re.Op != syntax.OpConcat || len(re.Sub) < 2 || slices.ContainsFunc(re.Sub[1:len(re.Sub)-1], looksAround) {
		return any
	}
	return "(?:" + bare + ")"
}

func looksAround(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText, syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return true
	}
	return slices.ContainsFunc(re.Sub, looksAround)
}

func compareCapabilities(c *comparison) {
	c.each(func(k container) {
		a, b := c.a.Common.Capabilities[k.a.Capabilities], c.b.Common.Capabilities[k.b.Capabilities]
		for _, set := range []struct {
			name string
			a, b []string
		}{
			{"Ambient", a.Ambient, b.Ambient},
			{"Bounding", a.Bounding, b.Bounding},
			{"Effective", a.Effective, b.Effective},
			{"Inheritable", a.Inheritable, b.Inheritable},
			{"Permitted", a.Permitted, b.Permitted},
		} {
			k.equal("capabilities."+set.name, capabilityNames(set.a), capabilityNames(set.b))
		}
	})
}

func capabilityNames(set []string) []string {
	out := []string{}
	for _, name := range set {
		out = append(out, strings.TrimPrefix(name, "CAP_"))
	}
	slices.Sort(out)
	return out
}

// compareStdio: ports for streams, which are free where the streams are.
func compareStdio(c *comparison) {
	c.each(func(k container) {
		if k.b.Stdin && !k.a.Stdin {
			k.differ(k.at("stdin"), "one opens stdin of the container", k.create(func(i map[string]any) { i["stdin_port"] = 1025 }))
		}
	})
	if c.b.Requests.ReadStream && !c.a.Requests.ReadStream {
		c.differ("requests.read_stream", "one opens output to the host", c.after(func(id string) []rulestest.Request {
			return []rulestest.Request{request("ReadStreamRequest", map[string]any{"container_id": id, "exec_id": id, "len": 1})}
		})...)
	}
}

// after are attempts with requests about a container that was created.
func (c *comparison) after(then func(id string) []rulestest.Request) []attempt {
	var out []attempt
	c.each(func(k container) { out = append(out, attempt{container: k.name, then: then}) })
	return out
}
