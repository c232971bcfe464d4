// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine/jsonvalue"
	"portcullis/engine/policytext"
	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/policydata"
)

// BenchmarkColdCreateContainer is the first evaluation of a process that has just loaded its policy: what a pod pays, which sees
// few of them. Each is a process of its own; the time from its start to the loaded policy is not counted. One half has rehearsed,
// as policyd does in a guest, the other has not.
func BenchmarkColdCreateContainer(b *testing.B) {
	times := map[string][]time.Duration{}
	for b.Loop() {
		for _, how := range []string{firstCold, firstRehearsed} {
			times[how] = append(times[how], firstTime(b, how))
		}
	}
	for how, all := range times {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds()), how+"-p50-µs")
	}
	b.ReportMetric(0, "ns/op") // the time of a process
}

const (
	firstCold      = "cold"
	firstRehearsed = "rehearsed"
	firstTook      = "first evaluation took "
)

func firstTime(b *testing.B, how string) time.Duration {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestFirstCreateContainer$", "-test.v")
	cmd.Env = append(os.Environ(), "PORTCULLIS_FIRST="+how)
	out, err := cmd.Output()
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(out), firstTook)
	took, err := time.ParseDuration(strings.Fields(rest + " ?")[0])
	if err != nil {
		b.Fatalf("%s: %v", out, err)
	}
	return took
}

// rehearse decides what policyd does before its first request, by the rules of j.
func rehearse(t *testing.T, j *rulestest.Judge) {
	t.Helper()
	r, err := rules.NewRehearsal()
	if err != nil {
		t.Fatal(err)
	}
	parts, err := policytext.Split(r.Policy)
	if err != nil {
		t.Fatal(err)
	}
	if j, err = j.Under(parts.Data); err != nil {
		t.Fatal(err)
	}
	for _, q := range r.Requests {
		input, err := jsonvalue.Read(q.Input)
		if err != nil {
			t.Fatal(err)
		}
		d, err := j.Decide(context.Background(), q.EntryPoint, input)
		if err != nil || !d.Allowed {
			t.Fatalf("%s is denied (%v)", q.EntryPoint, err)
		}
		if err := j.Apply(context.Background(), d.Ops); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFirstCreateContainer is run by the benchmark above in a process of its own,
// where it says how long the first decision took. Elsewhere it only decides.
func TestFirstCreateContainer(t *testing.T) {
	p := manyPod(t, 1)
	j, input := judgeCompact(t, p), createInput(t, p, 0, 0)
	if err := j.SetState(context.Background(), map[string]any{"sandbox": ""}); err != nil {
		t.Fatal(err)
	}
	if err := j.Prepare(context.Background(), "CreateContainerRequest"); err != nil {
		t.Fatal(err)
	}
	if os.Getenv("PORTCULLIS_FIRST") == firstRehearsed {
		rehearse(t, j)
	}
	start := time.Now()
	d, err := j.Decide(context.Background(), "CreateContainerRequest", input)
	took := time.Since(start)
	if err != nil || !d.Allowed {
		t.Fatalf("denied (%v)", err)
	}
	if os.Getenv("PORTCULLIS_FIRST") != "" {
		fmt.Println(firstTook + took.String())
	}
}

func BenchmarkExecProcess(b *testing.B) {
	p := richPod(b)
	j := judgeCompact(b, p)
	for _, r := range emulator(p).All() {
		if r.Kind != "ExecProcessRequest" {
			if _, err := j.Ask(context.Background(), r); err != nil {
				b.Fatal(err)
			}
		}
	}
	input := value(b, emulator(p).ExecProcess("web", []string{"true"}))
	for b.Loop() {
		if d, err := j.Decide(context.Background(), "ExecProcessRequest", input); err != nil || !d.Allowed {
			b.Fatalf("denied (%v)", err)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{1, 40} {
		p := manyPod(b, n)
		b.Run(fmt.Sprintf("full/containers=%d", n), func(b *testing.B) {
			for b.Loop() {
				judge(b, p)
			}
		})
	}
	b.Run("rules alone", func(b *testing.B) {
		for b.Loop() {
			if _, err := rulestest.New(rules.Text(), nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func createInput(tb testing.TB, p *policydata.Policy, n, links int) ast.Value {
	tb.Helper()
	r := emulator(p).CreateContainer(fmt.Sprintf("container-%d", n))
	process := r.Input["OCI"].(map[string]any)["Process"].(map[string]any)
	env := process["Env"].([]any)
	for i, e := range env {
		name, _, _ := strings.Cut(e.(string), "=")
		if v, ok := kubernetesLinks[name]; ok {
			env[i] = name + "=" + v
		}
	}
	for i := range links {
		process["Env"] = append(process["Env"].([]any), fmt.Sprintf("SERVICE_%d_PORT_8%02d_TCP=tcp://10.0.1.%d:8%02d", i, i, i, i))
	}
	return value(tb, r)
}

// kubernetesLinks are the variables of the API server's service, as kubelet writes them.
var kubernetesLinks = map[string]string{
	"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443", "KUBERNETES_SERVICE_PORT_HTTPS": "443",
	"KUBERNETES_PORT": "tcp://10.96.0.1:443", "KUBERNETES_PORT_443_TCP": "tcp://10.96.0.1:443",
	"KUBERNETES_PORT_443_TCP_PROTO": "tcp", "KUBERNETES_PORT_443_TCP_PORT": "443", "KUBERNETES_PORT_443_TCP_ADDR": "10.96.0.1",
}

func value(tb testing.TB, r rulestest.Request) ast.Value {
	tb.Helper()
	v, err := ast.InterfaceToValue(r.Input)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}
