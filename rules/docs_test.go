package rules_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/internal/rulestest"
	"portcullis/rules"
)

var update = flag.Bool("update", false, "write generated documents anew")

const docsHead = `# What the rules say to each request

Generated from rules/requests.json and rules/hostchosen.json by
` + "`go test ./rules -run TestRequestsDocument -update`" + `.

The agent has 42 methods with 41 messages, which are the entry points of the
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

| Request | Fields | Why |
|---|---|---|
`

func TestRequestsDocumentIsFresh(t *testing.T) {
	var doc strings.Builder
	doc.WriteString(docsHead)
	for _, e := range rules.Entries() {
		fmt.Fprintf(&doc, "| %s | %s | %s |\n", e.Request, e.Default, e.Checks)
	}
	doc.WriteString(docsList)
	for _, h := range rules.HostChosenFields() {
		fmt.Fprintf(&doc, "| %s | `%s` | %s |\n", strings.TrimSuffix(h.Request, "Request"), strings.Join(h.Fields, "`, `"), h.Reason)
	}
	checkDocument(t, "requests.md", doc.String())
}

// checkDocument holds that a file of the documentation has the text, or writes it.
func checkDocument(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("..", "docs", name)
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
		t.Errorf("docs/%s differs from what it is made of; run with -update", name)
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

func TestEveryMethodHasAnEntry(t *testing.T) {
	methods := readMethods(t)
	if methods == nil {
		t.Skip("SKIPPED: agent-api.json is absent")
	}
	entries := map[string]bool{}
	for _, e := range rules.Entries() {
		entries[e.Request] = true
	}
	seen := map[string]bool{}
	for _, m := range methods {
		name := strings.TrimPrefix(m.Request, "grpc.")
		if seen[name] = true; !entries[name] {
			t.Errorf("%s has no entry", name)
		}
	}
	if len(seen) != len(entries) || len(methods) != 42 {
		t.Errorf("%d methods with %d messages, %d entries", len(methods), len(seen), len(entries))
	}
}

func TestDefaultPolicies(t *testing.T) {
	for name, wants := range map[string]func(request string) bool{
		"allow-all":              func(string) bool { return true },
		"allow-all-except-exec":  func(r string) bool { return r != "ExecProcessRequest" },
		"deny-all-but-setpolicy": func(r string) bool { return r == "SetPolicyRequest" },
	} {
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
			if err != nil || d.Allowed != wants(e.Request) {
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
