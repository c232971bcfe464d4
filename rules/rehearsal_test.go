// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"os"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine"
	"portcullis/engine/jsonvalue"
	"portcullis/internal/rulestest"
	"portcullis/rules"
)

// The rehearsal is one container beside its sandbox, of this release's settings.
func TestRehearsalIsFresh(t *testing.T) {
	p := manyPod(t, 1)
	p.Sandbox.Name, p.Sandbox.Namespace = "^rehearsal$", "rehearsal"
	data, err := p.JSON()
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]any{"policy_data": json.RawMessage(data)}
	var requests []rules.RehearsedRequest
	for _, r := range []rulestest.Request{emulator(p).CreateSandbox(), emulator(p).CreateContainer("container-0")} {
		input, err := json.Marshal(r.Input)
		if err != nil {
			t.Fatal(err)
		}
		requests = append(requests, rules.RehearsedRequest{EntryPoint: r.Kind, Input: input})
	}
	stored["requests"] = requests
	text, err := json.Marshal(stored)
	if err != nil {
		t.Fatal(err)
	}
	const path = "rehearsal.json.gz"
	if *update {
		if err := os.WriteFile(path, compressed(t, text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := decompressed(t, path); !bytes.Equal(got, text) {
		t.Errorf("%s differs from what it is made of; run with -update", path)
	}
}

func compressed(t *testing.T, text []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func decompressed(t *testing.T, path string) []byte {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A denial would stop early, and have reasons compiled that nobody reads.
func TestRehearsalIsAllowed(t *testing.T) {
	rehearsal, err := rules.NewRehearsal()
	if err != nil {
		t.Fatal(err)
	}
	compiler, err := engine.NewCompiler(engine.CompilerOptions{HeldRules: rules.Held()})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := compiler.Compile(context.Background(), rehearsal.Policy)
	if err != nil {
		t.Fatal(err)
	}
	var requests []engine.Request
	for _, r := range rehearsal.Requests {
		requests = append(requests, engine.Request{EntryPoint: r.EntryPoint, Input: func(*engine.Policy) (ast.Value, error) { return jsonvalue.Read(r.Input) }})
	}
	if err := engine.Rehearse(context.Background(), policy, requests); err != nil {
		t.Fatal(err)
	}
}
