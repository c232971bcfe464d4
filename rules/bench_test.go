package rules_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/rules"
	"portcullis/rules/policydata"
	"portcullis/rules/rulestest"
)

// BenchmarkCreateContainer judges the creation of the last container of a pod.
// links adds service-link variables, as a namespace with ten services has.
func BenchmarkCreateContainer(b *testing.B) {
	for _, bench := range []struct{ containers, links int }{{1, 0}, {40, 0}, {1, 40}} {
		for _, form := range []string{"compact", "full"} {
			b.Run(fmt.Sprintf("%s/containers=%d/links=%d", form, bench.containers, bench.links), func(b *testing.B) {
				p := manyPod(b, bench.containers)
				j := judge(b, p)
				if form == "compact" {
					j = judgeCompact(b, p)
				}
				input := createInput(b, p, bench.containers-1, bench.links)
				b.ResetTimer()
				for b.Loop() {
					d, err := j.Decide(context.Background(), "CreateContainerRequest", input)
					if err != nil || !d.Allowed {
						b.Fatalf("denied (%v)", err)
					}
				}
			})
		}
	}
}

// BenchmarkFirstCreateContainer is the first evaluation after loading: what a pod
// pays, which sees few of them.
func BenchmarkFirstCreateContainer(b *testing.B) {
	p := manyPod(b, 1)
	input := createInput(b, p, 0, 0)
	for b.Loop() {
		b.StopTimer()
		j := judgeCompact(b, p)
		b.StartTimer()
		if d, err := j.Decide(context.Background(), "CreateContainerRequest", input); err != nil || !d.Allowed {
			b.Fatalf("denied (%v)", err)
		}
	}
}

func BenchmarkExecProcess(b *testing.B) {
	p := richPod(b)
	j := judgeCompact(b, p)
	for _, r := range emulator(p).All() {
		if r.Kind == "CreateContainerRequest" {
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
