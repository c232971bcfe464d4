// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/agentproto"
	"portcullis/internal/rulestest"
	"portcullis/rules"
)

var update = flag.Bool("update", false, "write generated documents")

const docsHead = `# What the rules say to each request

Generated from rules/requests.json and rules/hostchosen.json by
` + "`go test ./rules -run TestRequestsDocument -update`" + `.

The agent has %d methods with %d messages, which are the entry points of the
rules: ReadStdout and ReadStderr share one. A request without an entry is denied.
*allowed*: whatever it holds. *checked*: allowed where the checks hold. *denied*:
unless the pod's policy asks for it.

| Request | Default | What the rules check |
|---|---|---|
`

const docsList = `
## What the host may choose

Every field of CreateContainer, ExecProcess and CreateSandbox is held to the pod's
policy, except for these; ` + "`*`" + ` stands for everything below. A test changes every field
of allowed requests and fails where a change is allowed that is not listed here; what
it found is in [strictness.md](strictness.md).

In braces stands what is of this pod; *missing*: it may be left out; in brackets: of what
alone a field is free. Other tests draw values from inside and outside of what a field
may be: those let the pod start, these are denied.

| Request | Fields, and what they may be | Why |
|---|---|---|
`

func TestRequestsDocumentIsFresh(t *testing.T) {
	var doc strings.Builder
	fmt.Fprintf(&doc, docsHead, len(agentMethods()), len(rules.Entries()))
	for _, e := range rules.Entries() {
		fmt.Fprintf(&doc, "| %s | %s | %s |\n", e.Request, e.Default, e.Checks)
	}
	doc.WriteString(docsList)
	for _, h := range rules.HostChosenFields() {
		var fields []string
		for _, f := range h.Fields {
			fields = append(fields, fmt.Sprintf("`%s`: %s", f, h.Domains[f]))
		}
		fmt.Fprintf(&doc, "| %s | %s | %s |\n", strings.TrimSuffix(h.Request, "Request"), strings.Join(fields, "; "), h.Reason)
	}
	checkDocument(t, "requests.md", doc.String())
}

// checkDocument holds that a file of the documentation has the text, or writes it.
func checkDocument(t *testing.T, name, text string) {
	t.Helper()
	checkFile(t, filepath.Join("..", "docs", name), text)
}

func checkFile(t *testing.T, path, text string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != text {
		t.Errorf("%s differs from what it is made of; run with -update", path)
	}
}

// The table says what an evaluation says.
func TestDefaultsAreAsDocumented(t *testing.T) {
	p := onePod(t)
	fresh, listing := judgeCompact(t, p), onePod(t)
	for _, e := range rules.Entries() {
		listing.Requests.Allow = append(listing.Requests.Allow, e.Request)
	}
	listed := judgeCompact(t, listing)
	for _, e := range rules.Entries() {
		decide := func(j *rulestest.Judge) bool {
			d, err := j.Decide(context.Background(), e.Request, ast.NewObject())
			if err != nil {
				t.Fatal(err)
			}
			return d.Allowed
		}
		if got, want := decide(fresh), e.Default == rules.Allowed; got != want {
			t.Errorf("%s: allowed is %v for an empty request, documented as %s", e.Request, got, e.Default)
		}
		want := e.Default == rules.Allowed || strings.Contains(e.Checks, "requests.allow")
		if got := decide(listed); got != want {
			t.Errorf("%s: allowed is %v where requests.allow lists it, want %v", e.Request, got, want)
		}
	}
}

// agentMethods are the methods of the agent's service, by its descriptors.
func agentMethods() []agentproto.Method {
	return slices.DeleteFunc(agentproto.Methods(), func(m agentproto.Method) bool { return m.Service != "grpc.AgentService" })
}

func TestEveryMethodHasAnEntry(t *testing.T) {
	entries := map[string]bool{}
	for _, e := range rules.Entries() {
		entries[e.Request] = true
	}
	seen := map[string]bool{}
	for _, m := range agentMethods() {
		if seen[m.EntryPoint()] = true; !entries[m.EntryPoint()] {
			t.Errorf("%s has no entry", m.EntryPoint())
		}
	}
	if len(seen) == 0 || len(seen) != len(entries) {
		t.Errorf("%d messages, %d entries", len(seen), len(entries))
	}
}

// defaultPolicies are what each default policy is for, and what it denies.
var defaultPolicies = map[string]struct {
	about string
	allow func(request string) bool
}{
	"allow-all":              {"Allows every request: for images without confidentiality, and for debugging.", func(string) bool { return true }},
	"allow-all-except-exec":  {"Allows every request but new processes in a container.", func(r string) bool { return r != "ExecProcessRequest" }},
	"deny-all-but-setpolicy": {"Waits for the pod's own policy: nothing else is allowed, so that nothing can have\n# happened before it.", func(r string) bool { return r == "SetPolicyRequest" }},
}

func TestDefaultPoliciesAreFresh(t *testing.T) {
	var names []string
	for _, e := range rules.Entries() {
		names = append(names, e.Request)
	}
	slices.Sort(names)
	for name, policy := range defaultPolicies {
		text := "# " + policy.about + "\npackage agent_policy\n\nimport rego.v1\n"
		for _, request := range names {
			text += fmt.Sprintf("\n%s := %v\n", request, policy.allow(request))
		}
		text += "\nAllowRequestsFailingPolicy := false\n"
		checkFile(t, filepath.Join("default", name+".rego"), text)
	}
}

func TestDefaultPolicies(t *testing.T) {
	for name, policy := range defaultPolicies {
		text, err := rules.Default(name)
		if err != nil {
			t.Fatal(err)
		}
		j, err := rulestest.New(text, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range rules.Entries() {
			d, err := j.Decide(context.Background(), e.Request, ast.NewObject())
			if err != nil || d.Allowed != policy.allow(e.Request) {
				t.Errorf("%s: %s allowed is %v (%v)", name, e.Request, d.Allowed, err)
			}
		}
	}
	for _, name := range []string{"", "allow", "../requests", "default/allow-all"} {
		if _, err := rules.Default(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Default(%q) gives %v", name, err)
		}
	}
}
