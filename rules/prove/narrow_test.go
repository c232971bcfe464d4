// SPDX-License-Identifier: Apache-2.0

package prove_test

import (
	"encoding/json"
	"strings"
	"testing"

	"portcullis/engine/fragment"
	"portcullis/engine/narrow"
	"portcullis/engine/policytext"
	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/policydata"
	"portcullis/rules/prove"
)

func narrower(t *testing.T, a, b *policydata.Policy) error {
	t.Helper()
	texts := make([][]byte, 2)
	for i, p := range []*policydata.Policy{a, b} {
		var err error
		if texts[i], err = p.Compact(rules.Text()); err != nil {
			t.Fatal(err)
		}
	}
	return narrow.Check(texts[0], texts[1], policytext.DigestOf([]byte(rules.Text())))
}

// TestWhatAGuestTakesForNarrowerIsProven: each narrowing of package narrow by name, and the way back refused.
func TestWhatAGuestTakesForNarrowerIsProven(t *testing.T) {
	prover := newProver(t)
	wide := changed(t, data(t, pods[0]), func(p *policydata.Policy) {
		web := p.Containers["web"]
		web.Exec = [][]string{{"a"}, {"b"}}
		web.OtherUsers = []policydata.User{{UID: 7}, {UID: 8}}
		web.Image.Also = append(web.Image.Also, web.Image.Source)
		web.Stdin = true
		web.Annotations.Optional = map[string]string{"a": "1", "b": "2"}
		web.Annotations.Patterns = map[string]string{"c": "^1$", "d": "^2$"}
		web.Sysctl.Optional = map[string]string{"net.a": "1", "net.b": "2"}
		p.Common.AppArmor = []string{"", "runtime/default"}
		p.Common.OCIVersions = append(p.Common.OCIVersions, "9.9.9")
		p.Common.Env.Whole = append(p.Common.Env.Whole, "^C=1$")
		p.Common.Annotations.Keys = map[string]string{"^x$": "^1$", "^y$": "^2$"}
		p.Common.Annotations.Patterns = map[string]string{"e": "^1$", "f": "^2$"}
		spare := *web
		spare.Mounts = map[string]policydata.Mount{}
		p.Containers["spare"] = &spare
		r := &p.Requests
		r.Allow = []string{"GetMetricsRequest", "ListRoutesRequest"}
		r.CloseStdin, r.WriteStream, r.GetDiagnosticData, r.UpdateEphemeralMounts = true, true, true, true
		r.Exec = policydata.Exec{Commands: [][]string{{"a"}, {"b"}}, Joined: []string{"^c$", "^d$"}, Stdin: true, Terminal: true}
		r.CopyFile = append(r.CopyFile, "^/run/x$")
		p.Issuers = []fragment.Issuer{issuer(2, fragment.May{Path: "containers.web.exec"})}
	})
	for name, change := range map[string]func(*policydata.Policy){
		"a container less":         func(p *policydata.Policy) { delete(p.Containers, "spare") },
		"exec":                     func(p *policydata.Policy) { p.Containers["web"].Exec = [][]string{{"b"}} },
		"other users":              func(p *policydata.Policy) { p.Containers["web"].OtherUsers = nil },
		"other names of the image": func(p *policydata.Policy) { p.Containers["web"].Image.Also = nil },
		"stdin of a container":     func(p *policydata.Policy) { p.Containers["web"].Stdin = false },
		"optional annotations":     func(p *policydata.Policy) { delete(p.Containers["web"].Annotations.Optional, "a") },
		"patterns of annotations":  func(p *policydata.Policy) { delete(p.Containers["web"].Annotations.Patterns, "c") },
		"optional sysctls":         func(p *policydata.Policy) { delete(p.Containers["web"].Sysctl.Optional, "net.a") },
		"AppArmor profiles":        func(p *policydata.Policy) { p.Common.AppArmor = []string{""} },
		"OCI versions":             func(p *policydata.Policy) { p.Common.OCIVersions = p.Common.OCIVersions[:1] },
		"patterns of variables":    func(p *policydata.Policy) { p.Common.Env.Whole = nil },
		"keys of annotations":      func(p *policydata.Policy) { delete(p.Common.Annotations.Keys, "^x$") },
		"common annotations":       func(p *policydata.Policy) { clear(p.Common.Annotations.Patterns) },
		"listed requests":          func(p *policydata.Policy) { p.Requests.Allow = []string{"ListRoutesRequest"} },
		"close_stdin":              func(p *policydata.Policy) { p.Requests.CloseStdin = false },
		"write_stream":             func(p *policydata.Policy) { p.Requests.WriteStream = false },
		"get_diagnostic_data":      func(p *policydata.Policy) { p.Requests.GetDiagnosticData = false },
		"update_ephemeral_mounts":  func(p *policydata.Policy) { p.Requests.UpdateEphemeralMounts = false },
		"commands":                 func(p *policydata.Policy) { p.Requests.Exec.Commands = [][]string{{"b"}} },
		"patterns of commands":     func(p *policydata.Policy) { p.Requests.Exec.Joined = nil },
		"stdin of commands":        func(p *policydata.Policy) { p.Requests.Exec.Stdin = false },
		"terminals":                func(p *policydata.Policy) { p.Requests.Exec.Terminal = false },
		"copied files":             func(p *policydata.Policy) { p.Requests.CopyFile = p.Requests.CopyFile[:1] },
		"forbidden addresses": func(p *policydata.Policy) {
			p.Requests.AddARPNeighbors.ForbiddenAddresses = append(p.Requests.AddARPNeighbors.ForbiddenAddresses, "^10$")
		},
		"forbidden devices": func(p *policydata.Policy) {
			p.Requests.AddARPNeighbors.ForbiddenDevices = append(p.Requests.AddARPNeighbors.ForbiddenDevices, "eth9")
		},
		"forbidden names": func(p *policydata.Policy) {
			p.Requests.Interface.ForbiddenNames = append(p.Requests.Interface.ForbiddenNames, "eth9")
		},
		"forbidden hw addresses": func(p *policydata.Policy) {
			p.Requests.Interface.ForbiddenHWAddrs = append(p.Requests.Interface.ForbiddenHWAddrs, "00:00:00:00:00:01")
		},
		"devices of routes": func(p *policydata.Policy) {
			p.Requests.Routes.ForbiddenDevices = append(p.Requests.Routes.ForbiddenDevices, "eth9")
		},
		"sources of routes": func(p *policydata.Policy) {
			p.Requests.Routes.ForbiddenSources = append(p.Requests.Routes.ForbiddenSources, "^10$")
		},
		"issuers":     func(p *policydata.Policy) { p.Issuers = nil },
		"minimum_svn": func(p *policydata.Policy) { p.Issuers[0].MinimumSVN = 3 },
	} {
		t.Run(name, func(t *testing.T) {
			slim := changed(t, wide, change)
			if err := narrower(t, wide, slim); err != nil {
				t.Error(err)
			}
			if err := narrower(t, slim, wide); err == nil {
				t.Error("the way back is taken too")
			}
			result, err := prover.Within(t.Context(), load(t, prover, wide), load(t, prover, slim))
			if err != nil {
				t.Fatal(err)
			}
			if result.Verdict != prove.Proven {
				t.Errorf("the proof says %s: %+v %+v", result.Verdict, result.Open, result.Looser)
			}
		})
	}
}

// TestLessThatAllowsMoreIsNotTakenForNarrower: a name that is known keeps a variable from being a service's, and a container
// keeps the one that it waits for from running twice, links from where its mounts are, and its name from an issuer.
func TestLessThatAllowsMoreIsNotTakenForNarrower(t *testing.T) {
	prover := newProver(t)
	for name, c := range map[string]struct{ wide, slim func(*policydata.Policy) }{
		"a common variable that looks like a service's": {
			func(p *policydata.Policy) {
				p.Common.Env.Names = map[string]string{"A_SERVICE_HOST": "^x$"}
				p.Common.Env.Whole = []string{"^[A-Z]+_SERVICE_HOST=[0-9.]+$"}
			},
			func(p *policydata.Policy) { p.Common.Env.Names = nil },
		},
		"an optional variable that looks like a service's": {
			func(p *policydata.Policy) {
				p.Containers["web"].Env.Optional = map[string]string{"A_SERVICE_HOST": "^x$"}
				p.Common.Env.Whole = []string{"^[A-Z]+_SERVICE_HOST=[0-9.]+$"}
			},
			func(p *policydata.Policy) { p.Containers["web"].Env.Optional = nil },
		},
		"a container that waits for another": {
			func(p *policydata.Policy) {
				p.Order = "enforced"
				waits := *p.Containers["web"]
				waits.After = []policydata.After{{Container: "web", State: "succeeded"}}
				p.Containers["waits"] = &waits
			},
			func(p *policydata.Policy) { delete(p.Containers, "waits") },
		},
		"a container with a mount below another": {
			func(p *policydata.Policy) {
				p.Order = policydata.OrderFree
				mount := policydata.Mount{From: "shared", Source: "data", Type: "bind", Options: []string{"ro"}}
				p.Containers["web"].Mounts["/data"] = mount
				other := *p.Containers["web"]
				below := mount
				below.Source = "more"
				other.Mounts = map[string]policydata.Mount{"/data": mount, "/data/more": below}
				p.Containers["other"] = &other
			},
			func(p *policydata.Policy) { delete(p.Containers, "other") },
		},
		"a container that an issuer may make if it is not there": {
			func(p *policydata.Policy) {
				p.Order = policydata.OrderFree
				other := *p.Containers["web"]
				other.Mounts = map[string]policydata.Mount{}
				p.Containers["other"] = &other
				p.Issuers = []fragment.Issuer{issuer(2, fragment.May{Path: "containers.other", Registries: []string{"registry.example.org/"}})}
			},
			func(p *policydata.Policy) { delete(p.Containers, "other") },
		},
		"a container whose files are known": {
			func(p *policydata.Policy) {
				other := *p.Containers["web"]
				other.Mounts = map[string]policydata.Mount{"/settings": {From: "shared", Source: "settings", Type: "bind", Options: []string{"ro"},
					Contents: &policydata.Contents{Files: map[string]policydata.File{"a": {SHA256: strings.Repeat("0", 64)}}}}}
				p.Containers["other"] = &other
				mine := other.Mounts["/settings"]
				mine.Contents = nil
				p.Containers["web"].Mounts["/settings"] = mine
			},
			func(p *policydata.Policy) { delete(p.Containers, "other") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			wide := changed(t, data(t, pods[0]), c.wide)
			slim := changed(t, wide, c.slim)
			if err := narrower(t, wide, slim); err == nil {
				t.Error("taken for narrower")
			}
			result, err := prover.Within(t.Context(), load(t, prover, wide), load(t, prover, slim))
			if err != nil {
				t.Fatal(err)
			}
			if result.Verdict == prove.Proven {
				t.Error("and proven to be")
			}
		})
	}
}

// oneOf so many changes is tried.
const oneOf = 39

// TestNoChangeIsTakenForNarrowerThatIsNotProven: each leaf of policies is changed, as for proofs, and both directions are asked.
// Of what the guest takes, a proof has to say so too.
func TestNoChangeIsTakenForNarrowerThatIsNotProven(t *testing.T) {
	prover := newProver(t)
	known := policytext.DigestOf([]byte(rules.Text()))
	taken, tried, n := 0, 0, 0
	for _, pod := range pods {
		original, err := data(t, pod).Compact(rules.Text())
		if err != nil {
			t.Fatal(err)
		}
		head, text, _ := strings.Cut(string(original), "policy_data := ")
		var tree map[string]any
		if err := json.Unmarshal([]byte(text), &tree); err != nil {
			t.Fatal(err)
		}
		for m := range rulestest.Mutations(rulestest.Request{Kind: "policy_data", Input: tree}) {
			if n++; n%oneOf != 0 {
				continue
			}
			tried++
			text, err := json.Marshal(m.Request.Input)
			if err != nil {
				t.Fatal(err)
			}
			other := []byte(head + "policy_data := " + string(text) + "\n")
			for _, pair := range [][2][]byte{{original, other}, {other, original}} {
				if narrow.Check(pair[0], pair[1], known) != nil {
					continue
				}
				a, err := prover.Load(t.Context(), pair[0])
				if err != nil {
					continue // no policy any more: the rules deny what they cannot read
				}
				b, err := prover.Load(t.Context(), pair[1])
				if err != nil {
					continue
				}
				taken++
				r, err := prover.Within(t.Context(), a, b)
				if err != nil {
					t.Fatal(err)
				}
				if r.Verdict != prove.Proven {
					t.Errorf("%v, %s %s: taken for narrower, and the proof says %s: %+v", pod, m.Change, m.Where, r.Verdict, r.Looser)
				}
				a.Close()
				b.Close()
			}
		}
	}
	t.Logf("%d of %d changes are taken for narrower in a direction", taken, tried)
	if taken == 0 {
		t.Error("no change is taken for narrower")
	}
}

// TestNarrowRefusesOtherRules, of which nothing is known.
func TestNarrowRefusesOtherRules(t *testing.T) {
	p := data(t, pods[0])
	known := policytext.DigestOf([]byte(rules.Text()))
	ours, err := p.Compact(rules.Text())
	if err != nil {
		t.Fatal(err)
	}
	full, err := p.Full(rules.Text())
	if err != nil {
		t.Fatal(err)
	}
	other, err := p.Full(rules.Text() + "\nGetMetricsRequest := true\n")
	if err != nil {
		t.Fatal(err)
	}
	if err := narrow.Check(ours, full, known); err != nil {
		t.Errorf("the same policy in its other form: %v", err)
	}
	for name, pair := range map[string][2][]byte{"new ones": {ours, other}, "both": {other, other}, "none": {ours, []byte("package agent_policy\n")}} {
		if narrow.Check(pair[0], pair[1], known) == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestNarrowRefusesDataWithTwoReadings: of two members of one name, readers take the one or the other.
func TestNarrowRefusesDataWithTwoReadings(t *testing.T) {
	ours, err := data(t, pods[0]).Compact(rules.Text())
	if err != nil {
		t.Fatal(err)
	}
	for _, once := range []string{"policy_data := {", `"requests":{`} {
		twice := once + `"allow":["GetMetricsRequest"],`
		if once != `"requests":{` {
			twice = once + `"requests":{"allow":["GetMetricsRequest"]},`
		}
		text := strings.Replace(string(ours), once, twice, 1)
		if text == string(ours) {
			t.Fatalf("there is no %s", once)
		}
		if err := narrow.Check(ours, []byte(text), policytext.DigestOf([]byte(rules.Text()))); err == nil {
			t.Errorf("%s: taken", twice)
		}
	}
}
