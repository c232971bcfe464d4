// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/policydata"
	"portcullis/rules/settings"
)

// judge compiles a policy in the full form.
func judge(tb testing.TB, p *policydata.Policy) *rulestest.Judge {
	tb.Helper()
	text, err := p.Full(rules.Text())
	if err != nil {
		tb.Fatal(err)
	}
	j, err := rulestest.New(string(text), nil, rules.Reasons())
	if err != nil {
		tb.Fatal(err)
	}
	return j
}

// judgeCompact loads a policy as a guest does that holds the rules.
func judgeCompact(tb testing.TB, p *policydata.Policy) *rulestest.Judge {
	tb.Helper()
	data, err := p.JSON()
	if err != nil {
		tb.Fatal(err)
	}
	j, err := rulestest.New(rules.Text(), data, rules.Reasons())
	if err != nil {
		tb.Fatal(err)
	}
	return j
}

// The Rego engine of kata-agent knows no classes like \w, which need tables of Unicode that it is built without.
func TestPatternsNameTheirCharacters(t *testing.T) {
	class := regexp.MustCompile(`\\[bBdDpPsSwW]`)
	text := rules.Text() + rules.UpstreamText()
	for _, platform := range settings.Platforms() {
		s, err := settings.Load(platform)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		text += strings.ReplaceAll(string(raw), `\\`, `\`)
	}
	for _, found := range class.FindAllStringIndex(text, 5) {
		t.Errorf("a class of characters: %s", text[max(0, found[0]-30):min(len(text), found[1]+10)])
	}
}

func emulator(p *policydata.Policy) rulestest.Emulator {
	return rulestest.Emulator{Policy: p, Pod: rulestest.DefaultPod(p)}
}

func TestWholePodIsAllowed(t *testing.T) {
	for name, p := range map[string]*policydata.Policy{"rich": richPod(t), "one": onePod(t), "many": manyPod(t, 3)} {
		for form, j := range map[string]*rulestest.Judge{"full": judge(t, p), "compact": judgeCompact(t, p)} {
			t.Run(name+"/"+form, func(t *testing.T) {
				for _, r := range emulator(p).All() {
					d, err := j.Ask(context.Background(), r)
					if err != nil || !d.Allowed {
						t.Fatalf("%s denied (%v): %s", r.Kind, err, why(t, j, r))
					}
				}
				complete, err := j.Eval(context.Background(), "pod_complete", ast.NewObject())
				if err != nil || complete != true {
					t.Errorf("pod_complete is %v (%v)", complete, err)
				}
			})
		}
	}
}

// why returns the findings for a denied request.
func why(tb testing.TB, j *rulestest.Judge, r rulestest.Request) string {
	tb.Helper()
	input, err := ast.InterfaceToValue(r.Input)
	if err != nil {
		tb.Fatal(err)
	}
	findings, err := j.Eval(context.Background(), "findings."+r.Kind, input)
	if err != nil {
		tb.Fatal(err)
	}
	raw, err := json.Marshal(findings)
	if err != nil {
		tb.Fatal(err)
	}
	return string(raw)
}
