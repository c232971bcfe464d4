package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"portcullis/engine"
	"portcullis/rules"
)

// denyAllButSetPolicy decides where no default policy is configured.
const denyAllButSetPolicy = `package agent_policy

default SetPolicyRequest := true
`

// defaultPolicy compiles the policy that decides until SetPolicy: the file at path, or the built-in one if path is empty.
func defaultPolicy(ctx context.Context, compiler *engine.Compiler, path string) (*engine.Policy, error) {
	text := []byte(denyAllButSetPolicy)
	if path != "" {
		var err error
		if text, err = readPolicy(path); err != nil {
			return nil, fmt.Errorf("read default policy: %w", err)
		}
	}
	p, err := compiler.Compile(ctx, text)
	if err != nil {
		return nil, fmt.Errorf("default policy %s: %w", path, err)
	}
	return p, nil
}

func readPolicy(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, engine.MaxText+1))
	if err != nil {
		return nil, err
	}
	return text, engine.CheckText(text)
}

// heldRules are the rules texts that a compact policy may name by digest.
func heldRules() []engine.HeldRules {
	reasons := []byte(rules.Reasons())
	return []engine.HeldRules{
		{Text: []byte(rules.Text()), Reasons: reasons},
		{Text: []byte(rules.UpstreamText()), Reasons: reasons, OnDemand: true},
	}
}
