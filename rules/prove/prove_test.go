// SPDX-License-Identifier: Apache-2.0

package prove_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"portcullis/internal/generatetest"
	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/policydata"
	"portcullis/rules/prove"
)

type pod struct{ manifest, platform string }

var pods = []pod{
	{"shop", "guest-pull"}, {"ledger", "guest-pull"}, {"trainer", "guest-pull"}, {"nightly", "guest-pull"},
	{"agent", "guest-pull"}, {"shop", "tardev"}, {"ledger", "host-pull"}, {"agent", "non-coco"},
}

// data is the policy of a pod whose containers come in any order, so that what is changed can be asked for at once.
func data(t testing.TB, p pod) *policydata.Policy {
	t.Helper()
	made, _, err := generatetest.Policies(generatetest.Manifest(t, "../testdata/pods/"+p.manifest+".yaml"),
		generatetest.Settings(t, p.platform, "unordered"), generatetest.Images(t, "../generate/testdata/images.json"))
	if err != nil || len(made) != 1 {
		t.Fatalf("%d policies (%v)", len(made), err)
	}
	return made[0]
}

func newProver(t testing.TB) *prove.Prover {
	t.Helper()
	p, err := prove.New()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func load(t testing.TB, prover *prove.Prover, p *policydata.Policy) *prove.Policy {
	t.Helper()
	text, err := p.Compact(rules.Text())
	if err != nil {
		t.Fatal(err)
	}
	out, err := prover.Load(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(out.Close)
	return out
}

// changed is a policy with a change made to a copy of it.
func changed(t testing.TB, p *policydata.Policy, change func(*policydata.Policy)) *policydata.Policy {
	t.Helper()
	text, err := p.JSON()
	if err != nil {
		t.Fatal(err)
	}
	out, _, err := policydata.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	change(out)
	return out
}

// Each change makes the policy looser, so that the old one is within the new one, and not the reverse: a request shows it.
func TestLoosenedPolicies(t *testing.T) {
	original := data(t, pods[0])
	prover := newProver(t)
	a := load(t, prover, original)
	for name, test := range map[string]struct {
		check, kind      string
		change, stricter func(*policydata.Policy) // nil leaves the policy as it is
	}{
		"an argument becomes a pattern": {"args", "CreateContainerRequest", func(p *policydata.Policy) {
			p.Containers["web"].ArgMatches["0"] = policydata.Match{Pattern: "^(?s:.*)$"}
		}, nil},
		"another image": {"image", "CreateContainerRequest", func(p *policydata.Policy) {
			p.Containers["web"].Image.Also = append(p.Containers["web"].Image.Also, "other")
			p.Containers["web"].Image.Digest = ""
		}, nil},
		"a variable of any name": {"env", "CreateContainerRequest", func(p *policydata.Policy) { p.Common.Env.Whole = append(p.Common.Env.Whole, "^[a-z]+=.*$") }, nil},
		"a variable of more values": {"env", "CreateContainerRequest", func(p *policydata.Policy) {
			c := p.Containers["web"]
			name, _, _ := strings.Cut(c.Env.Fixed[0], "=")
			c.Env.Fixed = c.Env.Fixed[1:]
			c.Env.Patterns = map[string]string{name: "^(?s:.*)$"}
		}, nil},
		"output to the host":         {"stdio", "ReadStreamRequest", func(p *policydata.Policy) { p.Requests.ReadStream = true }, nil},
		"a command":                  {"exec_command", "ExecProcessRequest", func(p *policydata.Policy) { p.Requests.Exec.Commands = [][]string{{"sh"}} }, nil},
		"commands by a pattern":      {"exec_command", "ExecProcessRequest", func(p *policydata.Policy) { p.Requests.Exec.Joined = []string{"^cat .*$"} }, nil},
		"mounts that may be missing": {"mounts", "CreateContainerRequest", func(p *policydata.Policy) { p.Strict.Mounts = policydata.Optional }, nil},
		"any order":                  {"order", "CreateContainerRequest", func(p *policydata.Policy) { p.Order = policydata.OrderFree }, func(p *policydata.Policy) { p.Order = policydata.OrderEnforced }},
		"a place to copy to":         {"copy_path", "CopyFileRequest", nil, func(p *policydata.Policy) { p.Requests.CopyFile = nil }},
		"loopback's name":            {"interface", "UpdateInterfaceRequest", func(p *policydata.Policy) { p.Requests.Interface.ForbiddenNames = nil }, nil},
		"more neighbours' flags":     {"arp", "AddARPNeighborsRequest", func(p *policydata.Policy) { p.Requests.AddARPNeighbors.Flags = 0xff }, nil},
		"a request":                  {"requests", "GetMetricsRequest", func(p *policydata.Policy) { p.Requests.Allow = []string{"GetMetricsRequest"} }, nil},
		"stdin":                      {"streams", "WriteStreamRequest", func(p *policydata.Policy) { p.Requests.WriteStream = true }, nil},
		"another user":               {"process", "CreateContainerRequest", func(p *policydata.Policy) { p.Containers["web"].OtherUsers = []policydata.User{{UID: 7, GID: 7}} }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := a, a
			if test.stricter != nil {
				a = load(t, prover, changed(t, original, test.stricter))
			}
			if test.change != nil {
				b = load(t, prover, changed(t, original, test.change))
			}
			if r, err := prover.Within(t.Context(), b, a); err != nil || r.Verdict != prove.Proven {
				t.Errorf("the stricter is not within the looser: %+v (%v)", r, err)
			}
			refuted(t, prover, a, b, test.check, test.kind)
		})
	}
}

func refuted(t *testing.T, prover *prove.Prover, a, b *prove.Policy, check, kind string) {
	t.Helper()
	r, err := prover.Within(t.Context(), a, b)
	if err != nil || r.Verdict != prove.Refuted {
		t.Fatalf("not refuted: %+v (%v)", r, err)
	}
	w := r.Witness
	if last := w.Requests[len(w.Requests)-1].Kind; w.Check != check || last != kind || w.Reason == "" {
		t.Errorf("refuted by check %s with a %s: %s", w.Check, last, w.Reason)
	}
	confirm(t, a, b, w)
}

// confirm decides the witness by rules that are evaluated without this project's engine.
func confirm(t *testing.T, a, b *prove.Policy, w *prove.Witness) {
	t.Helper()
	strict, loose := judge(t, a.Data), judge(t, b.Data)
	for i, r := range w.Requests {
		yes, err := loose.Ask(t.Context(), r)
		if err != nil || !yes.Allowed {
			t.Errorf("request %d, %s, is denied by both (%v)", i, r.Kind, err)
		}
		no, err := strict.Ask(t.Context(), r)
		if err != nil || no.Allowed != (i < len(w.Requests)-1) {
			t.Errorf("request %d, %s: the stricter policy allows it: %v (%v)", i, r.Kind, no.Allowed, err)
		}
	}
}

// compiled are the rules, for judges by any policy.
var compiled = sync.OnceValues(func() (*rulestest.Judge, error) { return rulestest.New(rules.Text(), nil) })

func judge(t testing.TB, p *policydata.Policy) *rulestest.Judge {
	t.Helper()
	raw, err := p.JSON()
	if err != nil {
		t.Fatal(err)
	}
	base, err := compiled()
	if err != nil {
		t.Fatal(err)
	}
	j, err := base.Under(raw)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestOtherRulesAreRefused(t *testing.T) {
	prover := newProver(t)
	p := data(t, pods[0])
	full, err := p.Full(rules.Text() + "\nGetMetricsRequest := true\n")
	if err != nil {
		t.Fatal(err)
	}
	bare, err := p.JSON()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"a rule more": full, "no rules": bare, "another tool's": []byte("package agent_policy\n")} {
		if _, err := prover.Load(t.Context(), text); !errors.Is(err, prove.ErrRules) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

func BenchmarkWithin(b *testing.B) {
	prover := newProver(b)
	x := data(b, pods[0])
	for n := range 18 { // of twenty containers
		c := *x.Containers["web"]
		x.Containers[fmt.Sprintf("web%d", n)] = &c
	}
	next := changed(b, x, func(p *policydata.Policy) { p.Containers["web"].Image.Also = nil })
	was, is := load(b, prover, x), load(b, prover, next)
	for b.Loop() {
		if r, err := prover.Within(b.Context(), was, is); err != nil || r.Verdict == prove.Unknown {
			b.Fatal(r, err)
		}
	}
}

// TestFormsAndPlatforms: the form of a policy says nothing, and the platform that it was made for does.
func TestFormsAndPlatforms(t *testing.T) {
	prover, shop := newProver(t), data(t, pods[0])
	full, err := shop.Full(rules.Text())
	if err != nil {
		t.Fatal(err)
	}
	written, err := prover.Load(t.Context(), full)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(written.Close)
	compact, other := load(t, prover, shop), load(t, prover, data(t, pods[5]))
	for _, test := range []struct {
		name string
		a, b *prove.Policy
		want prove.Verdict
	}{
		{"compact within full", written, compact, prove.Proven},
		{"full within compact", compact, written, prove.Proven},
		{"layers within an image that is pulled", compact, other, prove.Refuted},
		{"an image that is pulled within layers", other, compact, prove.Refuted},
	} {
		r, err := prover.Within(t.Context(), test.a, test.b)
		if err != nil || r.Verdict != test.want {
			t.Fatalf("%s: %+v (%v)", test.name, r, err)
		}
		if r.Witness != nil {
			confirm(t, test.a, test.b, r.Witness)
		}
	}
}

// TestPoliciesWithoutARequestAreCompared: of which no request can be made, and so no example be given.
func TestPoliciesWithoutARequestAreCompared(t *testing.T) {
	prover, shop := newProver(t), data(t, pods[0])
	a := load(t, prover, shop)
	for name, change := range map[string]func(*policydata.Policy){
		"no storage for a mount": func(p *policydata.Policy) {
			for _, c := range p.Containers {
				c.Storages = nil
			}
		},
		"a pattern of no string": func(p *policydata.Policy) { match(p, `^[^\x00-\x{10FFFF}]$`) },
		"no containers":          func(p *policydata.Policy) { p.Containers = nil },
		"no mounts":              func(p *policydata.Policy) { p.Common.Mounts[p.Containers["web"].BaseMounts] = nil },
		"no arguments":           func(p *policydata.Policy) { p.Containers["web"].Args, p.Containers["web"].ArgMatches = nil, nil },
	} {
		b := load(t, prover, changed(t, shop, change))
		for _, pair := range [][2]*prove.Policy{{a, b}, {b, a}} {
			if _, err := prover.Within(t.Context(), pair[0], pair[1]); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, form := range prove.Forms() {
			property, err := prove.ParseProperty(form[0])
			if err == nil {
				_, err = prover.Holds(t.Context(), b, property)
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
