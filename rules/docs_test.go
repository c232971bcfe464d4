// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
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

Generated from rules/requests.json, rules/hostchosen.json and rules/testdata/guarantees.json by
` + "`go test ./rules -run TestRequestsDocument -update`" + `, which looks up each rule and test that is named.

The agent has %d methods with %d messages, which are the entry points of the
rules: ReadStdout and ReadStderr share one. A request without an entry is denied.
*allowed*: whatever it holds. *checked*: allowed where the checks hold. *denied*:
unless the pod's policy asks for it.

| Request | Default | What the rules check | Rules | Tests |
|---|---|---|---|---|
`

const docsGuarantees = `
## What holds

Each guarantee with its rules, which are in rules/*.rego, and the tests that hold it; what stays the host's choice all the same; and
where it is weaker without our gate: on the engine of kata-agent or an OPA, nobody tells the policy what became of a request, how a
process ended, or what is in a file.

| Guarantee | Rules | Tests | The host's choice | Without the gate |
|---|---|---|---|---|
`

const docsList = `
## What the host may choose

Every field of CreateContainer, ExecProcess and CreateSandbox is held to the pod's
policy, except for these; ` + "`*`" + ` stands for everything below. A test changes every field
of allowed requests and fails where a change is allowed that is not listed here; what
it found is in [strictness.md](strictness.md).

In braces stands what is of this pod; *missing*: it may be left out; in brackets: of what
alone a field is free. ` + "`TestFieldsAreFreeWithinTheirDomains`" + ` draws values from inside and outside of what a field
may be: those let the pod start, these are denied. ` + "`TestSingleLeafChangesAreDenied`" + ` and
` + "`TestSingleLeafChangesOfRecordedRequestsAreDenied`" + ` are those that change every field.

| Request | Fields, and what they may be | Why | Rules |
|---|---|---|---|
`

func TestRequestsDocumentIsFresh(t *testing.T) {
	var doc strings.Builder
	held := newHeld(t)
	fmt.Fprintf(&doc, docsHead, len(agentMethods()), len(rules.Entries()))
	entries := readList[holding](t, "requests.json")
	for i, e := range rules.Entries() {
		fmt.Fprintf(&doc, "| %s | %s | %s | %s | %s |\n", e.Request, e.Default, e.Checks, held.rules(entries[i]), held.tests(entries[i]))
	}
	doc.WriteString(docsGuarantees)
	for _, g := range readList[holding](t, "testdata/guarantees.json") {
		fmt.Fprintf(&doc, "| %s | %s | %s | %s | %s |\n", g.Guarantee, held.rules(g), held.tests(g), g.Host, g.Without)
	}
	doc.WriteString(docsList)
	chosen := readList[holding](t, "hostchosen.json")
	for i, h := range rules.HostChosenFields() {
		var fields []string
		for _, f := range h.Fields {
			fields = append(fields, fmt.Sprintf("`%s`: %s", f, h.Domains[f]))
		}
		fmt.Fprintf(&doc, "| %s | %s | %s | %s |\n", strings.TrimSuffix(h.Request, "Request"), strings.Join(fields, "; "), h.Reason, held.rules(chosen[i]))
	}
	checkDocument(t, "requests.md", doc.String())
}

// holding is a promise with the names of what holds it.
type holding struct {
	Guarantee, Host, Without string
	Rules, Tests             []string
}

func readList[T any](t *testing.T, file string) (list []T) {
	t.Helper()
	if err := json.Unmarshal([]byte(read(t, file)), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// held are the rules and tests that there are.
type held struct {
	*testing.T
	rule, test map[string]bool
}

func newHeld(t *testing.T) held {
	t.Helper()
	h := held{t, map[string]bool{}, allTests(t)}
	for _, file := range regoFiles(t) {
		if strings.HasSuffix(file, "_test.rego") {
			continue
		}
		for _, m := range regexp.MustCompile(`(?m)^(?:default )?([A-Za-z_]+)`).FindAllStringSubmatch(read(t, file), -1) {
			h.rule[m[1]] = true
		}
	}
	return h
}

func (h held) rules(of holding) string { return h.names(of.Rules, h.rule, "rule") }
func (h held) tests(of holding) string { return h.names(of.Tests, h.test, "test") }

// names are in Markdown. Each must be there, and at least one.
func (h held) names(names []string, known map[string]bool, what string) string {
	h.Helper()
	if len(names) == 0 {
		h.Errorf("a promise names no %s", what)
	}
	var out []string
	for _, name := range names {
		if !known[name] {
			h.Errorf("there is no %s %s", what, name)
		}
		out = append(out, "`"+name+"`")
	}
	return strings.Join(out, ", ")
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
