// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine"
	"portcullis/engine/policytext"
)

func TestTextBounds(t *testing.T) {
	fill := func(n int) string {
		head := "package agent_policy\n#"
		return head + strings.Repeat("x", n-len(head))
	}
	for _, tt := range []struct {
		name, text string
		want       error
	}{
		{"empty", "", engine.ErrTextEmpty},
		{"at the bound", fill(engine.MaxText), nil},
		{"one byte over", fill(engine.MaxText + 1), engine.ErrTextTooLarge},
		{"byte order mark", "\ufeffpackage agent_policy\n", engine.ErrTextBOM},
		{"not UTF-8", "package agent_policy\n# \xff\n", engine.ErrTextEncoding},
		{"NUL", "package agent_policy\n# \x00\n", engine.ErrTextNUL},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := newCompiler(t).Compile(context.Background(), []byte(tt.text))
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestRegoVersions(t *testing.T) {
	for name, text := range map[string]string{
		"v0 without imports":     "package agent_policy\nX { input.a == 1 }",
		"v0 with future imports": "package agent_policy\nimport future.keywords.if\nX if { input.a == 1 }",
		"v0 with import rego.v1": "package agent_policy\nimport rego.v1\nX if { input.a == 1 }",
		"v1":                     "package agent_policy\nX if { input.a == 1 }",
		"v1 with a set rule":     "package agent_policy\ns contains 1 if true\nX if { input.a in s }",
	} {
		t.Run(name, func(t *testing.T) {
			e := startText(t, text)
			if !judge(t, e, "X", `{"a":1}`).Allowed || judge(t, e, "X", `{"a":2}`).Allowed {
				t.Error("wrong decision")
			}
		})
	}
}

// kata-agent's engine takes a space before the parenthesis of print. What only looks like one stays as it is.
func TestPrintMayStandApartFromItsParenthesis(t *testing.T) {
	for name, text := range map[string]string{
		"a space":              `X { print ("a =", input.a); input.a == 1 }`,
		"more":                 "X { print \t (input.a)\n\tinput.a == 1 }",
		"in a string":          `X { x := ["print (1)", "print (2) \" print (3)"]; x[0] == concat("", ["print ", "(1)"]); count(x[1]) == 21; print (x); input.a == 1 }`,
		"in a raw string":      "X { x := `print (\\`; count(x) == 8; print (x); input.a == 1 }",
		"in a comment":         "# print (\" nothing\nX { print (1); input.a == 1 }",
		"at the end of a name": "X { myprint := 1; print (myprint); input.a == myprint }",
	} {
		t.Run(name, func(t *testing.T) {
			text = "package agent_policy\n" + text
			e := startText(t, text)
			if !judge(t, e, "X", `{"a":1}`).Allowed || judge(t, e, "X", `{"a":2}`).Allowed {
				t.Error("wrong decision")
			}
			if string(e.Active().Text()) != text {
				t.Error("the text is another")
			}
		})
	}
}

func TestRecursionIsRefusedWithWhatToDo(t *testing.T) {
	_, err := newCompiler(t).Compile(context.Background(), []byte("package agent_policy\nf(x) = y { y := f(x - 1) }\nX { f(2) == 1 }"))
	if err == nil || !strings.Contains(err.Error(), "calls itself") || !strings.Contains(err.Error(), "docs/foreign-policies.md") {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat("../docs/foreign-policies.md"); err != nil {
		t.Error(err)
	}
}

func TestCompileErrorsSayWhereAndQuoteNothing(t *testing.T) {
	const secret = "hunter2-0123456789"
	for _, tt := range []struct {
		name, text   string
		line, column int
	}{
		{"syntax error in v0", "package agent_policy\nX { input.a == 1 }\n\nY { := \"" + secret + "\" }", 4, 5},
		{"syntax error in v1", "package agent_policy\nX if { input.a == 1 }\n\nY if { := \"" + secret + "\" }", 4, 8},
		{"unsafe variable", "package agent_policy\nX { input.a == \"" + secret + "\"; y }", 2, 38},
		{"another package", "# \npackage other\nX = \"" + secret + "\"", 2, 1},
		{"a package below", "package agent_policy.sub\nX = true", 1, 1},
		{"recursion", "package agent_policy\nX { Y }\nY { X }", 2, 1},
		{"unknown builtin", "package agent_policy\nX {\n\thttp.send({\"url\": \"" + secret + "\"})\n}", 3, 2},
		{"clock", "package agent_policy\nX { time.now_ns() > 1 }", 2, 5},
		{"randomness", "package agent_policy\nX { rand.intn(\"a\", 2) == 1 }", 2, 5},
		{"environment", "package agent_policy\nX { opa.runtime().env.A }", 2, 5},
		{"unbounded shift", "package agent_policy\nX { bits.lsh(1, 1000000000) > 1 }", 2, 5},
		{"unbounded range", "package agent_policy\nX { count(numbers.range(1, 1000000000)) > 1 }", 2, 11},
		{"error in a full text with data", "package agent_policy\nX { y }\npolicy_data := {\"a\": \"" + secret + "\"}", 2, 5},
		{"error in the data", "package agent_policy\nX = true\npolicy_data := {\"a\" \"" + secret + "\"}", 3, 21},
		{"only comments", "# nothing\n", 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := newCompiler(t).Compile(context.Background(), []byte(tt.text))
			var ce *engine.CompileError
			if !errors.As(err, &ce) {
				t.Fatalf("got %v, want a CompileError", err)
			}
			if ce.Line != tt.line || ce.Column != tt.column {
				t.Errorf("at %d:%d, want %d:%d: %v", ce.Line, ce.Column, tt.line, tt.column, err)
			}
			if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error quotes the text: %q", err)
			}
		})
	}
}

func TestCompileEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := newCompiler(t).Compile(ctx, []byte(podRules+podData(2000)))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestPolicyKeepsItsOwnText(t *testing.T) {
	text := []byte("package agent_policy\nX = true\n")
	p, err := newCompiler(t).Compile(context.Background(), text)
	if err != nil {
		t.Fatal(err)
	}
	want := sha256.Sum256(text)
	before := bytes.Clone(text)
	text[0] = '#'
	p.Text()[1] = '#'
	if p.Digest() != want || !bytes.Equal(p.Text(), before) {
		t.Error("the policy changed with its text")
	}
}

func TestHas(t *testing.T) {
	p := compile(t, "package agent_policy\ndefault A = false\nB.c = 1\nf(x) = x { x }\nimport data.q\n")
	for name, want := range map[string]bool{"A": true, "B": true, "f": false, "q": false, "": false, "C": false} {
		if p.Has(name) != want {
			t.Errorf("Has(%q) = %v", name, !want)
		}
	}
}

// podCases are requests with state between them.
var podCases = []struct{ entryPoint, input string }{
	{"CreateContainerRequest", createInput("a", "c0")},
	{"CreateContainerRequest", createInput("a", "c0")},
	{"CreateContainerRequest", createInput("b", "other")},
	{"StartContainerRequest", `{"container_id": "a"}`},
	{"StartContainerRequest", `{"container_id": "b"}`},
	{"ExecProcessRequest", execInput},
	{"ExecProcessRequest", `{"process": {"Args": ["sh"]}}`},
	{"StatsContainerRequest", `{}`},
	{"RemoveContainerRequest", `{"container_id": "a"}`},
	{"RemoveContainerRequest", `{"container_id": "a"}`},
	{"NoSuchRequest", `{}`},
}

// podDecisions plays podCases.
func podDecisions(t *testing.T, e *engine.Engine) (out []string) {
	for _, c := range podCases {
		v := judge(t, e, c.entryPoint, c.input)
		if err := v.Commit(); err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%s %v %q %s", c.entryPoint, v.Allowed, v.Reason, state(t, e)))
	}
	return out
}

// TestEveryFormDecidesTheSame covers the ways in which one policy can be loaded: as one module, with its data beside the
// rules, from held rules, and compact.
func TestEveryFormDecidesTheSame(t *testing.T) {
	data := podData(3)
	qualified := strings.ReplaceAll(podRules, "policy_data.", "data.agent_policy.policy_data.")
	imported := strings.Replace(podRules, "import future", "import data.agent_policy.policy_data\nimport future", 1)
	held := newCompiler(t, podRules, qualified, imported)
	none := newCompiler(t)
	var want []string
	for _, tt := range []struct {
		name     string
		compiler *engine.Compiler
		text     string
	}{
		{"one module", none, podRules + data + "\n# a comment keeps the data a rule\n"},
		{"data beside the rules", none, podRules + data},
		{"held rules, full", held, podRules + data},
		{"held rules, compact", held, compactText(podRules, data)},
		{"compact with a final newline", held, compactText(podRules, data) + "\n"},
		{"held rules that say data.agent_policy.policy_data", held, compactText(qualified, data)},
		{"held rules that import it", held, compactText(imported, data)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := tt.compiler.Compile(context.Background(), []byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			got := podDecisions(t, start(t, p, engine.Options{}))
			if want == nil {
				want = got
				t.Log(strings.Join(got, "\n"))
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("got\n%s", strings.Join(got, "\n"))
			}
		})
	}
	if !strings.HasPrefix(want[0], "CreateContainerRequest true") || !strings.HasPrefix(want[1], "CreateContainerRequest false") {
		t.Errorf("the policy decides nothing: %v", want[:2])
	}
}

func TestRulesThatAreNotHeldAreNamed(t *testing.T) {
	_, err := newCompiler(t).Compile(context.Background(), []byte(compactText(podRules, "policy_data := {}")))
	var unheld *engine.UnheldRulesError
	if !errors.As(err, &unheld) || unheld.Digest != sha256.Sum256([]byte(podRules)) {
		t.Errorf("got %v", err)
	}
}

// TestWhatOnlyResemblesTheCompactFormIsAFullText: it then has no entry points, and denies.
func TestWhatOnlyResemblesTheCompactFormIsAFullText(t *testing.T) {
	exact := compactText(podRules, `policy_data := {"a": 1}`)
	c := newCompiler(t, podRules)
	if p, err := c.Compile(context.Background(), []byte(exact)); err != nil || !p.Has("ExecProcessRequest") {
		t.Fatalf("the exact form: %v", err)
	}
	for name, text := range map[string]string{
		"a comment before":  "# x\n" + exact,
		"a comment after":   exact + "\n# x",
		"a rule after":      exact + "\nX = true",
		"a rule between":    strings.Replace(exact, "\npolicy_data", "\nX = true\npolicy_data", 1),
		"an import":         strings.Replace(exact, "\nrules", "\nimport data.x\nrules", 1),
		"a spaced package":  strings.Replace(exact, "package ", "package  ", 1),
		"capital digits":    strings.Replace(exact, "sha256:", "sha256:A", 1),
		"another assigment": strings.Replace(exact, "rules :=", "rules =", 1),
		"CRLF":              strings.ReplaceAll(exact, "\n", "\r\n"),
		"data as Rego":      compactText(podRules, `policy_data := {"a": 1 + 1}`),
	} {
		t.Run(name, func(t *testing.T) {
			p, err := c.Compile(context.Background(), []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if p.Has("ExecProcessRequest") {
				t.Error("taken for the compact form")
			}
		})
	}
}

// Of two members of one name OPA takes the last, other engines none or the first.
func TestPolicyDataWithAKeyTwiceIsRefused(t *testing.T) {
	for form, text := range map[string]string{
		"compact": compactText(podRules, `policy_data := {"a": {"b": 1, "b": 2}}`),
		"full":    "package agent_policy\nX { policy_data.a == 2 }\npolicy_data := {\"a\": 1, \"\\u0061\": 2}",
	} {
		if _, err := newCompiler(t, podRules).Compile(t.Context(), []byte(text)); !errors.Is(err, policytext.ErrTwice) {
			t.Errorf("%s: %v", form, err)
		}
	}
}

// TestDataIsTakenOutOnlyWhereThatChangesNothing has texts whose last rule looks like data.
func TestDataIsTakenOutOnlyWhereThatChangesNothing(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       bool
	}{
		{"in a raw string", "package agent_policy\nX { contains(s, \"policy\") }\ns := `\npolicy_data := {}`", true},
		{"defined twice alike", "package agent_policy\npolicy_data := {\"a\": 1}\nX { policy_data.a == 1 }\npolicy_data := {\"a\": 1}", true},
		{"shadowed by a local", "package agent_policy\nX { policy_data := {\"a\": 2}; policy_data.a == 2 }\npolicy_data := {\"a\": 1}", true},
		{"shadowed by an argument", "package agent_policy\nf(policy_data) { policy_data == 7 }\nX { f(7) }\npolicy_data := {\"a\": 1}", true},
		{"replaced by with", "package agent_policy\nY { policy_data.a == 3 }\nX { Y with data.agent_policy.policy_data as {\"a\": 3} }\npolicy_data := {\"a\": 1}", true},
		{"missing member", "package agent_policy\nX { policy_data.b == 1 }\npolicy_data := {\"a\": 1}", false},
		{"a number in another notation", "package agent_policy\nX { policy_data.a == 10 }\npolicy_data := {\"a\": 1e1}", true},
		{"an array by index", "package agent_policy\nX { policy_data[1].a == 2 }\npolicy_data := [{\"a\": 1}, {\"a\": 2}]", true},
		{"a scalar", "package agent_policy\nX { policy_data == 5 }\npolicy_data := 5", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for form, text := range map[string]string{"as data": tt.text, "as a rule": tt.text + "\n# not JSON"} {
				if tt.name == "in a raw string" && form == "as a rule" {
					continue
				}
				if tt.name == "missing member" && form == "as a rule" {
					continue // OPA refuses it when it compiles
				}
				if got := judge(t, startText(t, text), "X", `{}`).Allowed; got != tt.want {
					t.Errorf("%s: allowed %v, want %v", form, got, tt.want)
				}
			}
		})
	}
}

// TestAKeyOfAnotherTypeFindsNothing has requests that look policy_data up by what they bring, data beside the rules or in them.
func TestAKeyOfAnotherTypeFindsNothing(t *testing.T) {
	const text = `package agent_policy
import future.keywords.in
X { policy_data.list[input.key] == "first" }
X { policy_data.names[input.key] == "one" }
X { some list in policy_data.lists; list[input.key] == "deep" }
X { policy_data[input.key] == "top" }
policy_data := {"list": ["first", "second"], "names": {"1": "one"}, "lists": [["x", "y", "deep"]], "7": "top"}`
	for _, tt := range []struct {
		key  string
		want bool
	}{
		{`0`, true}, {`"0"`, false}, {`-2`, false}, {`0.0`, true},
		{`"1"`, true}, {`1`, false},
		{`2`, true}, {`"2"`, false},
		{`"7"`, true}, {`7`, false},
		{`[0]`, false}, {`{"1": 1}`, false}, {`null`, false}, {`true`, false},
	} {
		for form, text := range map[string]string{"as data": text, "as a rule": text + "\n# not JSON"} {
			if got := judge(t, startText(t, text), "X", `{"key": `+tt.key+`}`).Allowed; got != tt.want {
				t.Errorf("%s, key %s: allowed %v, want %v", form, tt.key, got, tt.want)
			}
		}
	}
}

func TestHeldRulesMustCompile(t *testing.T) {
	for name, rules := range map[string]string{
		"syntax":              "package agent_policy\nX {",
		"own policy_data":     "package agent_policy\npolicy_data := {}\nX { policy_data }",
		"foreign policy_data": "package agent_policy\nimport data.other.policy_data\nX { policy_data }",
		"nothing":             "",
	} {
		t.Run(name, func(t *testing.T) {
			if err := warm(policytext.Held{Text: []byte(rules)}); err == nil {
				t.Error("accepted")
			}
		})
	}
}

// Reasons that are held beside rules explain their denials, in both forms, and cannot decide.
func TestHeldReasonsExplainAndDoNotDecide(t *testing.T) {
	rules := "package agent_policy\n\nimport rego.v1\n\nStatsContainerRequest if input.container_id == policy_data.id\n"
	reasons := "package agent_policy\n\nimport rego.v1\n\nreasons.StatsContainerRequest contains msg if {\n\tmsg := sprintf(\"want %s\", [policy_data.id])\n}\n"
	for _, late := range []bool{false, true} {
		c, err := engine.NewCompiler(engine.CompilerOptions{LateReasons: late, HeldRules: []policytext.Held{{Text: []byte(rules), Reasons: []byte(reasons)}}})
		if err != nil {
			t.Fatal(err)
		}
		compact := fmt.Sprintf("package agent_policy\n\nrules := \"sha256:%x\"\n\npolicy_data := {\"id\": \"a\"}\n", sha256.Sum256([]byte(rules)))
		for name, text := range map[string]string{"compact": compact, "full": rules + "policy_data := {\"id\": \"a\"}\n"} {
			t.Run(fmt.Sprintf("%s, late %t", name, late), func(t *testing.T) {
				p, err := c.Compile(context.Background(), []byte(text))
				if err != nil {
					t.Fatal(err)
				}
				e := engine.New(p, engine.Options{})
				defer e.Close()
				for id, reason := range map[string]string{"a": "", "b": "want a"} {
					v, err := e.Judge(context.Background(), engine.Request{EntryPoint: "StatsContainerRequest", Input: func(*engine.Policy) (ast.Value, error) {
						return ast.NewObject(ast.Item(ast.StringTerm("container_id"), ast.StringTerm(id))), nil
					}})
					if err != nil || v.Allowed != (reason == "") || v.Reason != reason {
						t.Errorf("%s: %+v, %v", id, v, err)
					}
				}
			})
		}
	}
	decides := strings.Replace(reasons, "reasons.StatsContainerRequest contains msg", "StatsContainerRequest", 1)
	if err := warm(policytext.Held{Text: []byte(rules), Reasons: []byte(decides)}); err == nil {
		t.Error("reasons that define a deciding rule were taken")
	}
}

// warm compiles held rules.
func warm(rules policytext.Held) error {
	c, err := engine.NewCompiler(engine.CompilerOptions{HeldRules: []policytext.Held{rules}})
	if err != nil {
		return err
	}
	return c.Warm()
}

// Compiling takes up to a kilobyte for a word, so that two megabytes of them would end the process; data is not counted.
func TestWordsOfAPolicyAreBounded(t *testing.T) {
	c, err := engine.NewCompiler(engine.CompilerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const head = "package agent_policy\n\ndefault CheckRequest := true\n"
	for name, test := range map[string]struct {
		text string
		err  error
	}{
		"rules":       {head + strings.Repeat("p{x}\n", 400_000), engine.ErrTextWords},
		"one array":   {head + "x := [" + strings.Repeat("1,", 500_000) + "1]\n", engine.ErrTextWords},
		"policy_data": {head + "\npolicy_data := {\"x\": [" + strings.Repeat("1,", 50_000) + "1]}\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := c.Compile(context.Background(), []byte(test.text)); !errors.Is(err, test.err) {
				t.Errorf("got %v, want %v", err, test.err)
			}
		})
	}
}
