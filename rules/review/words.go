// SPDX-License-Identifier: Apache-2.0

package review

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"portcullis/rules/policydata"
)

// commandLine writes arguments as a shell would take them.
func commandLine(args []string) string {
	quoted := make([]string, len(args))
	for i, arg := range args {
		quoted[i] = arg
		if arg == "" || strings.ContainsAny(arg, " \t\n\"'\\$`;&|<>()*?[]{}~#!") {
			quoted[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// argumentsOf are the arguments of a container with what stands for a value.
func argumentsOf(c *policydata.Container) []string {
	args := append([]string{}, c.Args...)
	for key, m := range c.ArgMatches {
		if i, err := strconv.Atoi(key); err == nil && i >= 0 && i < len(args) {
			args[i] = m.Template
			if m.Pattern != "" {
				args[i] = "⟨" + m.Pattern + "⟩"
			}
		}
	}
	return args
}

// user writes who a process runs as.
func user(u policydata.User) string {
	s := fmt.Sprintf("user %d, group %d", u.UID, u.GID)
	if u.UID == 0 {
		s = fmt.Sprintf("root (user 0), group %d", u.GID)
	}
	var more []string
	for _, gid := range u.AdditionalGids {
		if gid != u.GID {
			more = append(more, strconv.Itoa(int(gid)))
		}
	}
	if len(more) > 0 {
		s += ", also groups " + strings.Join(more, ", ")
	}
	if u.Username != "" {
		s += ", named " + u.Username
	}
	return s
}

// hiddenValue tells the length of a value, and nothing else of it.
func hiddenValue(value string) string {
	n := utf8.RuneCountInString(value)
	return fmt.Sprintf("hidden, %d %s", n, or("characters", "character", n == 1))
}

// podFacts is what a template may hold of the pod.
var podFacts = regexp.MustCompile(`\$\(sandbox-(?:name|namespace|uid)\)`)

// hiddenTemplate shows the facts of a template, and dots for the text around them, which a Secret may have given.
func hiddenTemplate(template string) string {
	var out strings.Builder
	rest := 0
	for _, at := range podFacts.FindAllStringIndex(template, -1) {
		out.WriteString(or("…", "", at[0] == rest) + template[at[0]:at[1]])
		rest = at[1]
	}
	return out.String() + or("…", "", rest == len(template))
}

// hiddenPattern shows a pattern unless it holds a longer piece of text, which a Secret may have given.
func hiddenPattern(pattern string) string {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil || longestText(re) > 5 {
		return "a hidden pattern"
	}
	return pattern
}

func longestText(re *syntax.Regexp) int {
	longest := 0
	if re.Op == syntax.OpLiteral {
		longest = len(re.Rune)
	}
	for _, sub := range re.Sub {
		longest = max(longest, longestText(sub))
	}
	return longest
}

// content says how far the content of a container's image is bound by the policy.
func content(c *policydata.Container) string {
	image := c.Image
	switch {
	case image.From == policydata.Layers:
		return fmt.Sprintf("bound by the root hashes of %d layers", len(image.Layers))
	case image.From == policydata.Host:
		return "not bound: the host shares the root filesystem"
	case image.Digest != "":
		return "bound by digest"
	case image.Source == "pause":
		return "part of the guest image"
	case image.Source == "" && c.OCI.Annotations.ImageName == "":
		return "not bound: the policy names none, the host chooses"
	}
	return "not bound: named by a tag, which can come to mean another image"
}

// from says where a mount comes from.
func from(m policydata.Mount) string {
	where := map[policydata.MountFrom]string{
		policydata.MountShared: "the host: ", policydata.MountStorage: "block storage of volume ", policydata.MountLocal: "a directory of the guest: ",
	}[m.From]
	return where + m.Source + or(", or the copy of an empty one: "+m.Copied, "", m.Copied == "")
}

// bound says how far the policy knows what the host copies into a mount, if it does.
func bound(m policydata.Mount) string {
	switch {
	case m.Contents.Bound():
		return ", content bound"
	case m.Contents != nil && !m.Contents.Open:
		return ", content bound but for " + strings.Join(m.Contents.Unknown(), ", ")
	}
	return ""
}

// setsOf names the five sets of capabilities.
func setsOf(c policydata.Capabilities) []struct {
	name  string
	names []string
} {
	return []struct {
		name  string
		names []string
	}{{"ambient", c.Ambient}, {"bounding", c.Bounding}, {"effective", c.Effective}, {"inheritable", c.Inheritable}, {"permitted", c.Permitted}}
}

// access says what a container may do to a mount, by its options.
func access(options []string) string {
	return or("writable", "read-only", slices.Contains(options, "ro"))
}

// Printable is one line with no character that a terminal acts on: nothing that a policy holds reads as a line of ours.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return '⏎'
		case !unicode.IsPrint(r) || r == utf8.RuneError:
			return ' '
		}
		return r
	}, text)
}
