// SPDX-License-Identifier: Apache-2.0

package explain_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/explain"
	"portcullis/rules/policydata"
)

func explained(tb testing.TB, e *explain.Explainer, kind string, request, state map[string]any) *explain.Explanation {
	tb.Helper()
	raw, err := json.Marshal(request)
	if err != nil {
		tb.Fatal(err)
	}
	pstate, err := json.Marshal(map[string]any{"pstate": state})
	if err != nil {
		tb.Fatal(err)
	}
	x, err := e.Explain(context.Background(), explain.Question{Kind: kind, Input: raw, State: pstate})
	if err != nil {
		tb.Fatal(err)
	}
	x.Hide()
	return x
}

func fullText(tb testing.TB, p *policydata.Policy) []byte {
	tb.Helper()
	full, err := p.Full(rules.Text())
	if err != nil {
		tb.Fatal(err)
	}
	return full
}

func TestEachChangeIsNamed(t *testing.T) {
	if len(changes) < 40 {
		t.Fatalf("only %d changes", len(changes))
	}
	p := shop(t)
	compact, err := p.Compact(rules.Text())
	if err != nil {
		t.Fatal(err)
	}
	forms := map[string][]byte{"full": fullText(t, p), "compact": compact}
	emulator := rulestest.Emulator{Policy: p, Pod: rulestest.DefaultPod(p)}
	for form, text := range forms {
		e, err := explain.New(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			t.Run(form+"/"+c.name, func(t *testing.T) {
				if c.path == "" || c.wanted == "" || c.got == "" {
					t.Fatal("the table does not say what has to be named")
				}
				name := c.container
				if name == "" {
					name = "web"
				}
				request := emulator.CreateContainer(name).Input
				if x := explained(t, e, "CreateContainerRequest", request, made); len(x.Findings) > 0 {
					t.Fatalf("the request as it was: %+v", x.Findings)
				}
				c.judge(t, name, explained(t, e, "CreateContainerRequest", c.apply(t, request), made))
			})
		}
	}
}

// made is the state of a pod whose sandbox was made.
var made = map[string]any{"sandbox": ""}

func (c change) judge(t *testing.T, container string, x *explain.Explanation) {
	t.Helper()
	var out strings.Builder
	if err := x.Write(&out, x.Kind, explain.Style{}); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(out.String(), "\n"); lines > 3 {
		t.Errorf("%d lines", lines)
	}
	t.Logf("\n%s", &out)
	if len(x.Findings) == 0 {
		t.Fatal("no finding")
	}
	f := x.Findings[0]
	if x.Container != container {
		t.Errorf("container %q, want %q", x.Container, container)
	}
	if f.Check != c.check {
		t.Errorf("check %q, want %q", f.Check, c.check)
	}
	if !strings.HasPrefix(f.Path, c.path) {
		t.Errorf("path %q, want %q", f.Path, c.path)
	}
	if w := explain.Words(f.Wanted); c.wanted != "" && w != c.wanted {
		t.Errorf("wanted %s, want %s", w, c.wanted)
	}
	if g := explain.Words(f.Got); c.got != "" && g != c.got {
		t.Errorf("got %s, want %s", g, c.got)
	}
	if x.Change == "" {
		t.Error("no word on what to change")
	}
	for _, secret := range []string{"correct-horse-battery", "debug"} {
		if c.check == "env" && strings.Contains(out.String(), secret) {
			t.Errorf("the text holds the value %q", secret)
		}
	}
}

// What CRI-O asks for differs in everything: one line says that it is CRI-O.
func TestCRIOIsNamed(t *testing.T) {
	p := shop(t)
	e, err := explain.New(fullText(t, p))
	if err != nil {
		t.Fatal(err)
	}
	request := rulestest.Emulator{Policy: p, Pod: rulestest.DefaultPod(p)}.CreateContainer("web").Input
	request["OCI"].(map[string]any)["Annotations"] = map[string]any{
		"io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.cri-o.ContainerName": "k8s_web_shop_prod_1_0",
		"io.kubernetes.cri-o.SandboxID": "x", "io.kubernetes.cri-o.ImageName": "nginx", "io.katacontainers.pkg.oci.container_type": "pod_container",
	}
	x := explained(t, e, "CreateContainerRequest", request, made)
	want := "OCI.Annotations: got those of CRI-O (io.kubernetes.cri-o.…), which no platform serves, wanted those of containerd (io.kubernetes.cri.…)"
	if len(x.Findings) != 1 || x.Sentence() != want || !strings.Contains(x.Change, "nodes with containerd") {
		t.Errorf("%d findings: %s; %s", len(x.Findings), x.Sentence(), x.Change)
	}
}
