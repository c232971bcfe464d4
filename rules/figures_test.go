// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"context"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/internal/rulestest"
	"portcullis/rules/policydata"
)

// BenchmarkDecision gives the median, the 99th percentile and the allocations of
// one decision, of the requests that a pod waits for.
func BenchmarkDecision(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // as in the daemon
	rich, twenty, one := richPod(b), manyPod(b, 20), manyPod(b, 1)
	for _, bench := range []struct {
		name, kind string
		policy     *policydata.Policy
		input      ast.Value
		before     []rulestest.Request
	}{
		{"create/small", "CreateContainerRequest", one, createInput(b, one, 0, 0), emulator(one).All()[:2]},
		{"create/shop", "CreateContainerRequest", rich, value(b, emulator(rich).CreateContainer("web")), started(rich, sandbox, "init-db", "init-cache")},
		{"create/20 containers", "CreateContainerRequest", twenty, createInput(b, twenty, 19, 0), emulator(twenty).All()[:2]},
		{"create/40 links", "CreateContainerRequest", one, createInput(b, one, 0, 40), emulator(one).All()[:2]},
		{"exec/shop", "ExecProcessRequest", rich, value(b, emulator(rich).ExecProcess("web", []string{"true"})), started(rich, sandbox, "init-db", "init-cache", "web")},
	} {
		b.Run(bench.name, func(b *testing.B) {
			j := judgeCompact(b, bench.policy)
			for _, r := range bench.before {
				if d, err := j.Ask(context.Background(), r); err != nil || !d.Allowed {
					b.Fatalf("denies %s (%v)", r.Kind, err)
				}
			}
			reportDecisions(b, j, bench.kind, bench.input)
		})
	}
}

// started returns the requests that create and start containers one after the other; all but the last have ended.
func started(p *policydata.Policy, names ...string) []rulestest.Request {
	requests := []rulestest.Request{emulator(p).CreateSandbox()}
	for i, name := range names {
		id := rulestest.ID(name)
		requests = append(requests, emulator(p).CreateContainer(name),
			rulestest.Request{Kind: "StartContainerRequest", Input: map[string]any{"container_id": id}})
		if i < len(names)-1 {
			requests = append(requests, rulestest.Request{Kind: "WaitProcessResponse", Input: map[string]any{
				"request": map[string]any{"container_id": id, "exec_id": ""}, "response": map[string]any{"status": 0},
			}})
		}
	}
	return requests
}

func reportDecisions(b *testing.B, j *rulestest.Judge, kind string, input ast.Value) {
	var times []time.Duration
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for b.Loop() {
		start := time.Now()
		d, err := j.Decide(context.Background(), kind, input)
		times = append(times, time.Since(start))
		if err != nil || !d.Allowed {
			b.Fatalf("denied (%v)", err)
		}
	}
	runtime.ReadMemStats(&after)
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Nanoseconds())/1000, "p50-µs")
	b.ReportMetric(float64(times[len(times)*99/100].Nanoseconds())/1000, "p99-µs")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(len(times)), "allocs/decision")
	b.ReportMetric(0, "ns/op")
}
