package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"portcullis/rules"
	"portcullis/rules/policydata"
	"portcullis/rules/rulestest"
)

// shopData is the pod that the tests and docs/operators.md speak of.
func shopData(tb testing.TB) *policydata.Policy {
	tb.Helper()
	text, err := os.ReadFile("../../rules/explain/testdata/shop.json")
	if err != nil {
		tb.Fatal(err)
	}
	p, _, err := policydata.Parse(text)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// shopStart are the requests of the shop's whole start.
func shopStart(p *policydata.Policy) []rulestest.Request {
	return rulestest.Emulator{Policy: p, Pod: rulestest.DefaultPod(p)}.All()
}

// writeShop writes the files that scripts use: shop.rego, shop-compact.rego and
// start.jsonl.
func writeShop(tb testing.TB, dir string) {
	tb.Helper()
	p := shopData(tb)
	full, err := p.Full(rules.Text())
	if err != nil {
		tb.Fatal(err)
	}
	compact, err := p.Compact(rules.Text())
	if err != nil {
		tb.Fatal(err)
	}
	writeFile(tb, filepath.Join(dir, "shop.rego"), full)
	writeFile(tb, filepath.Join(dir, "shop-compact.rego"), compact)
	writeFile(tb, filepath.Join(dir, "start.jsonl"), jsonLines(tb, shopStart(p)))
}

func writeFile(tb testing.TB, path string, text []byte) {
	tb.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		tb.Fatal(err)
	}
}

func jsonLines(tb testing.TB, requests []rulestest.Request) []byte {
	tb.Helper()
	var out []byte
	for _, r := range requests {
		line, err := json.Marshal(map[string]any{"kind": r.Kind, "request": r.Input})
		if err != nil {
			tb.Fatal(err)
		}
		out = append(append(out, line...), '\n')
	}
	return out
}
