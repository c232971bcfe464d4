// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/internal/rulestest"
	"portcullis/rules/generate/kata"
	"portcullis/rules/policydata"
)

// BenchmarkCreateContainer judges the creation of a pod's last container once its sandbox runs. links adds service-link
// variables, as a namespace with several services has. Where PORTCULLIS_PEER_POLICY names a policy of upstream's, made by its own
// genpolicy for any pod, its rules and settings judge the same requests of the same pod in turn with ours.
func BenchmarkCreateContainer(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // as in the daemon
	for _, bench := range []struct{ containers, links int }{{1, 0}, {40, 0}, {1, 40}} {
		b.Run(fmt.Sprintf("containers=%d/links=%d", bench.containers, bench.links), func(b *testing.B) {
			p := manyPod(b, bench.containers)
			input := createInput(b, p, bench.containers-1, bench.links)
			judges := map[string]*rulestest.Judge{"compact": judgeCompact(b, p), "full": judge(b, p)}
			if peer := peerJudge(b, p); peer != nil {
				judges["peer"] = peer
			}
			p50s := takeTurns(b, p, judges, input)
			for name, p50 := range p50s {
				b.ReportMetric(float64(p50.Microseconds()), name+"-p50-µs")
			}
			if peer, ok := p50s["peer"]; ok {
				b.ReportMetric(float64(peer)/float64(p50s["compact"]), "peer/compact")
			}
			b.ReportMetric(0, "ns/op") // the mean over all of them says nothing
		})
	}
}

// turn is how often a judge decides before the next has its turn.
const turn = 20

// takeTurns lets each judge decide the same request, turn by turn, and returns their medians.
func takeTurns(b *testing.B, p *policydata.Policy, judges map[string]*rulestest.Judge, input ast.Value) map[string]time.Duration {
	ctx := context.Background()
	for name, j := range judges {
		for _, r := range emulator(p).All()[:2] {
			if d, err := j.Ask(ctx, r); err != nil || !d.Allowed {
				b.Fatalf("%s denies %s (%v)", name, r.Kind, err)
			}
		}
	}
	times := map[string][]time.Duration{}
	for b.Loop() {
		for name, j := range judges {
			for range turn {
				start := time.Now()
				d, err := j.Decide(ctx, "CreateContainerRequest", input)
				times[name] = append(times[name], time.Since(start))
				if err != nil || !d.Allowed {
					b.Fatalf("%s denies (%v)", name, err)
				}
			}
		}
	}
	p50s := map[string]time.Duration{}
	for name, t := range times {
		slices.Sort(t)
		p50s[name] = t[len(t)/2]
	}
	return p50s
}

// peerJudge holds the rules and settings of the peer's policy, with the containers of p. It is nil where no peer is named.
func peerJudge(b *testing.B, p *policydata.Policy) *rulestest.Judge {
	b.Helper()
	path := os.Getenv("PORTCULLIS_PEER_POLICY")
	if path == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	rules, data, ok := strings.Cut(string(text), "\npolicy_data := ")
	if !ok {
		b.Fatalf("%s has no policy_data", path)
	}
	j, err := rulestest.New(rules+"\npolicy_data := "+withContainers(b, data, p)+"\n", nil)
	if err != nil {
		b.Fatal(err)
	}
	return j
}

// withContainers replaces the containers of the peer's policy_data by those of p.
func withContainers(b *testing.B, data string, p *policydata.Policy) string {
	b.Helper()
	for _, c := range p.Containers {
		c.Env.Patterns = nil // the peer's generator leaves service links to its settings
	}
	_, s := load(b, "guest-pull")
	own, err := kata.Data(p, s)
	if err != nil {
		b.Fatal(err)
	}
	var peer, ours map[string]json.RawMessage
	if err := json.Unmarshal([]byte(data), &peer); err != nil {
		b.Fatal(err)
	}
	if err := json.Unmarshal(own, &ours); err != nil {
		b.Fatal(err)
	}
	peer["containers"], peer["sandbox"] = ours["containers"], ours["sandbox"]
	merged, err := json.MarshalIndent(peer, "", "  ")
	if err != nil {
		b.Fatal(err)
	}
	return string(merged)
}
