// SPDX-License-Identifier: Apache-2.0

package explain_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"portcullis/internal/rulestest"
	"portcullis/rules/explain"
	"portcullis/rules/policydata"
)

// plainChanges are those of the changes that the plain policy has a check for,
// with the name that the check has there: the rule it is in.
var plainChanges = map[string]string{
	"argument":               "same_args",
	"further argument":       "same_args",
	"program":                "same_args",
	"program of the sandbox": "same_args",
	"value of a variable":    "known_entry",
	"unknown variable":       "known_entry",
	"variable of metrics":    "known_entry",
	"source of the image":    "same_storages",
	"working directory":      "same_process",
	"user":                   "same_user",
	"group":                  "same_user",
	"further group":          "same_user",
	"user of metrics":        "same_user",
	"new privileges":         "same_process",
	"terminal":               "same_process",
	"capability":             "same_capabilities",
	"capability taken":       "same_capabilities",
	"writable root":          "same_root",
	"mount missing":          "same_mounts",
	"mount added":            "same_mount",
	"mount source":           "same_mount",
	"mount options":          "same_mount",
	"mount type":             "same_mount",
	"masked path":            "same_linux",
	"sysctl":                 "same_linux",
	"annotation":             "same_annotation",
	"pod name":               "same_annotation",
	"namespace":              "same_annotation",
}

// plainPolicy is testdata/plain.rego over the shop's containers, in the shape that upstream gives its data.
func plainPolicy(tb testing.TB, p *policydata.Policy) []byte {
	tb.Helper()
	source, err := os.ReadFile("testdata/plain.rego")
	if err != nil {
		tb.Fatal(err)
	}
	emulator := rulestest.Emulator{Policy: p, Pod: rulestest.DefaultPod(p)}
	var containers []any
	for _, name := range emulator.Order() {
		containers = append(containers, mirrored(emulator.CreateContainer(name).Input, p.Containers[name]))
	}
	data, err := json.MarshalIndent(map[string]any{"containers": containers}, "", "  ")
	if err != nil {
		tb.Fatal(err)
	}
	return slices.Concat(source, []byte("\npolicy_data := "), data, []byte("\n"))
}

// mirrored is a container that allows the request it is made from.
func mirrored(request map[string]any, c *policydata.Container) map[string]any {
	oci := request["OCI"].(map[string]any)
	annotations := map[string]any{}
	for key, value := range oci["Annotations"].(map[string]any) {
		if slices.Contains([]string{"io.kubernetes.cri.container-name", "io.kubernetes.cri.sandbox-namespace", "io.kubernetes.cri.container-type", "example.com/team"}, key) {
			annotations[key] = value
		}
		if key == "io.kubernetes.cri.sandbox-name" {
			annotations[key] = "^shop-[0-9a-z-]+$"
		}
	}
	mounts := []any{}
	for _, m := range oci["Mounts"].([]any) {
		m := m.(map[string]any)
		mounts = append(mounts, map[string]any{"destination": m["destination"], "type_": m["type_"], "options": m["options"],
			"source": "^" + regexp.QuoteMeta(m["source"].(string)) + "$"})
	}
	exec := [][]string{}
	exec = append(exec, c.Exec...)
	return map[string]any{
		"OCI":      map[string]any{"Process": oci["Process"], "Root": oci["Root"], "Mounts": mounts, "Annotations": annotations, "Linux": oci["Linux"]},
		"storages": request["storages"], "exec_commands": exec,
	}
}

func TestPlainPolicyNamesTheCheck(t *testing.T) {
	if len(plainChanges) < 20 {
		t.Fatalf("only %d changes", len(plainChanges))
	}
	p := shop(t)
	e, err := explain.New(plainPolicy(t, p))
	if err != nil {
		t.Fatal(err)
	}
	emulator := rulestest.Emulator{Policy: p, Pod: rulestest.DefaultPod(p)}
	tried := 0
	for _, c := range changes {
		check, ok := plainChanges[c.name]
		if !ok {
			continue
		}
		tried++
		t.Run(c.name, func(t *testing.T) {
			name := c.container
			if name == "" {
				name = "web"
			}
			c.check, c.wanted = check, ""
			if c.name == "source of the image" {
				c.path, c.got = "", ""
			}
			request := emulator.CreateContainer(name).Input
			if x := explained(t, e, "CreateContainerRequest", request, made); len(x.Findings) > 0 {
				t.Fatalf("the request as it was: %+v", x.Findings)
			}
			x := explained(t, e, "CreateContainerRequest", c.apply(t, request), made)
			if c.name == "masked path" {
				c.path, c.got = "OCI.Linux.MaskedPaths", ""
			}
			c.judge(t, name, x)
			if x.Line == 0 || x.Rule == "" || len(x.Prints) == 0 {
				t.Errorf("line %d, rule %q, %d prints", x.Line, x.Rule, len(x.Prints))
			}
			for _, line := range append(x.Prints, x.Rule) {
				if strings.Contains(line, "correct-horse-battery") {
					t.Errorf("a print holds a value: %s", line)
				}
			}
		})
	}
	if tried != len(plainChanges) {
		t.Errorf("%d of %d changes were tried", tried, len(plainChanges))
	}
}

func TestPlainPolicyTellsOfExec(t *testing.T) {
	p := shop(t)
	e, err := explain.New(plainPolicy(t, p))
	if err != nil {
		t.Fatal(err)
	}
	emulator := rulestest.Emulator{Policy: p, Pod: rulestest.DefaultPod(p)}
	x := explained(t, e, "ExecProcessRequest", emulator.ExecProcess("web", []string{"sh"}).Input, nil)
	if !strings.Contains(x.Rule, "argv == input.process.Args") || len(x.Prints) == 0 {
		t.Errorf("rule %q, prints %q", x.Rule, x.Prints)
	}
}

// What a policy from another tool can be like: alternatives that its data makes no
// use of, rules whose failure is remembered, prints or none.
const otherPolicy = `package agent_policy

import future.keywords.if
import future.keywords.in

default ExecProcessRequest := false

ExecProcessRequest if {
	plain_input
	some argv in policy_data.commands
	argv == input.process.Args
}

ExecProcessRequest if {
	plain_input
	some pattern in policy_data.patterns
	regex.match(pattern, concat(" ", input.process.Args))
}

plain_input if {
	process := input.process
	count(process.Label) == 0
	not startswith(process.Cwd, "/secret")
}

UpdateRoutesRequest if {
	every route in input.routes {
		not route.device in policy_data.forbidden
	}
}

policy_data := {"commands": [["a"], ["b", "c"]], "patterns": [], "forbidden": ["lo"]}
`

func TestPlainExpressionsTellTheirValues(t *testing.T) {
	e, err := explain.New([]byte(otherPolicy))
	if err != nil {
		t.Fatal(err)
	}
	exec := func(label, cwd string, args ...any) map[string]any {
		return map[string]any{"process": map[string]any{"Label": label, "Cwd": cwd, "Args": args, "Env": []any{"TOKEN=hunter2hunter2"}}}
	}
	tests := []struct {
		name, kind string
		request    map[string]any
		want       string
	}{
		{"a rule that is in use", execKind, exec("", "/", "x"), `argv == input.process.Args does not hold: argv = ["b","c"], input.process.Args = ["x"]`},
		{"a failure that is remembered", execKind, exec("l", "/", "a"), "count(process.Label) == 0 does not hold: process.Label = l"},
		{"a negation", execKind, exec("", "/secret/x", "a"), `not startswith(process.Cwd, "/secret") does not hold: process.Cwd = /secret/x`},
		{"an item", "UpdateRoutesRequest", map[string]any{"routes": []any{map[string]any{"device": "eth0"}, map[string]any{"device": "lo"}}},
			`not route.device in policy_data.forbidden does not hold: route.device = lo, policy_data.forbidden = ["lo"]`},
		{"a secret", execKind, exec("", "/", "hunter2hunter2"), `argv == input.process.Args does not hold: argv = ["b","c"], input.process.Args = ["(hidden)"]`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			x := explained(t, e, test.kind, test.request, nil)
			if got := x.Sentence(); got != test.want {
				t.Errorf("says %s\nwant %s", got, test.want)
			}
			if x.Change == "" {
				t.Error("no word on what to change")
			}
		})
	}
}
