// SPDX-License-Identifier: Apache-2.0

// Package rules holds the Rego rules that decide the host's requests, and the default policies of a guest that was given none.
//
// The rules are several files, one per family of requests, that make one module in a fixed order. They find the pod's policy at
// data.agent_policy.policy_data, be that a rule appended to them (the full form) or a document loaded beside them (the compact
// form); see package policydata.
package rules

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"portcullis/engine/policytext"
	"portcullis/rules/findings"
)

//go:embed requests.rego policy.rego upstream.rego state.rego sandbox.rego create.rego process.rego linux.rego
//go:embed storage.rego exec.rego copyfile.rego contents.rego network.rego
var files embed.FS

//go:embed default/*.rego
var defaults embed.FS

//go:embed words.rego
var words string

// header is what begins each file; the module has it once.
const header = "package agent_policy\n\nimport rego.v1\n"

// order is the order of the files in the module, one in which it compresses well.
func order(source string) []string {
	return []string{
		source, "state.rego", "sandbox.rego", "requests.rego", "exec.rego", "process.rego",
		"storage.rego", "linux.rego", "create.rego", "copyfile.rego", "contents.rego", "network.rego",
	}
}

// Text returns the rules for policy_data in this project's shape: exactly the bytes that precede policy_data in the full form
// of a policy, so that their SHA-256 is the digest by which the compact form names them.
func Text() string { return text() }

var text = sync.OnceValue(func() string { return join(order("policy.rego")) + "\n" })

// UpstreamText returns the rules for policy_data in the shape of upstream's genpolicy, which can be given them as its rules file
// (-p). They differ from Text in one file, which reads that shape.
func UpstreamText() string { return upstreamText() }

var upstreamText = sync.OnceValue(func() string { return join(order("upstream.rego")) + "\n" })

// join makes one module of the files, with short names, without comments, indentation, the spaces around operators and the line
// breaks inside brackets: the limit on the size of annotations counts every byte, and people read the files.
func join(names []string) string { return WithNames(shorten(plain(names))) }

// plain is the module with the names that the files have.
func plain(names []string) string {
	var out []byte
	out = append(out, header...)
	for _, name := range names {
		_, body, ok := strings.Cut(source(name), header)
		if !ok {
			panic("rules: embedded file without the common header: " + name)
		}
		for _, line := range strings.Split(strings.Trim(body, "\n"), "\n") {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				out = appendLine(out, tighten(line))
			}
		}
	}
	return string(out)
}

func source(name string) string {
	text, err := files.ReadFile(name)
	if err != nil {
		panic("rules: embedded file missing: " + name)
	}
	return string(text)
}

// lineLength is how long a line may grow by the ones that it goes on in: some Rego
// engines take no more than 1024 characters, and people read them.
const lineLength = 400

// appendLine appends a line, to the one before it where a bracket or a comma says that it goes on.
func appendLine(text []byte, line string) []byte {
	before := bytes.TrimSuffix(text, []byte("\n"))
	switch {
	case len(before)-bytes.LastIndexByte(before, '\n')+len(line) > lineLength:
	case strings.ContainsAny(line[:1], "}])"):
		text = bytes.TrimSuffix(before, []byte(","))
	case bytes.ContainsAny(before[len(before)-1:], "{[(,|"):
		text = before
	}
	return append(append(text, line...), '\n')
}

// tighten takes spaces away outside of strings.
func tighten(line string) string {
	spaces := strings.NewReplacer(" := ", ":=", " == ", "==", " != ", "!=", " > ", ">", " <= ", "<=",
		" | ", "|", " & ", "&", " - ", "-", " + ", "+", ", ", ",", ": ", ":", "; ", ";", " if {", " if{")
	var out strings.Builder
	for rest := line; rest != ""; {
		at := strings.IndexAny(rest, "\"`")
		if at < 0 {
			return out.String() + spaces.Replace(rest)
		}
		end := at + 1 + strings.IndexByte(rest[at+1:], rest[at]) + 1
		if end == at+1 || strings.Contains(rest[at:end], `\`) && rest[at] == '"' {
			return out.String() + rest // an escape or an open string: leave the line as it is
		}
		out.WriteString(spaces.Replace(rest[:at]) + rest[at:end])
		rest = rest[end:]
	}
	return out.String()
}

// Reasons returns a second module of the same package that tells why a request was denied: rules findings.<Request> (a set of
// objects with check, container, path, wanted, got) and reasons.<Request> (a set of short sentences). It is made from the
// conditions of the rules by package findings. It only asks the rules of Text and decides nothing, so that it need not travel
// with a policy: whoever holds the rules compiles it beside them.
func Reasons() string { return reasons() }

var reasons = sync.OnceValue(func() string { return WithNames(longReasons()) })

// ReasonsOf returns the reasons for the rules of a policy in the full form. Rules that are not of this release may have its
// reasons where their names are those of the files, and never where they are short: a short name may mean another rule there.
func ReasonsOf(text []byte) string {
	if string(text) == Text() || string(text) == UpstreamText() {
		return Reasons()
	}
	return longReasons()
}

var longReasons = sync.OnceValue(func() string {
	var sources []findings.File
	for _, name := range order("policy.rego") {
		sources = append(sources, findings.File{Name: name, Text: source(name)})
	}
	text, err := findings.Module(sources)
	if err != nil {
		panic("rules: " + err.Error())
	}
	return words + "\n" + text
})

// Held are the rules that a guest holds, so that a policy in the compact form may name them: those of Text, and those of
// UpstreamText.
func Held() []policytext.Held {
	return []policytext.Held{
		{Text: []byte(Text()), Reasons: []byte(Reasons())},
		{Text: []byte(UpstreamText()), Reasons: []byte(Reasons()), OnDemand: true},
	}
}

// Default returns a default policy: "deny-all-but-setpolicy", "allow-all" or
// "allow-all-except-exec". An unknown name is an error that wraps fs.ErrNotExist.
func Default(name string) (string, error) {
	if !fs.ValidPath(name) || strings.Contains(name, "/") {
		return "", fmt.Errorf("default policy %q: %w", name, fs.ErrNotExist)
	}
	text, err := defaults.ReadFile("default/" + name + ".rego")
	if err != nil {
		return "", fmt.Errorf("default policy %q: %w", name, fs.ErrNotExist)
	}
	return string(text), nil
}
