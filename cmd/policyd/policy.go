package main

import (
	"context"
	"fmt"

	"portcullis/engine"
	"portcullis/internal/bounded"
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
		if text, err = bounded.ReadFile(path, engine.MaxText); err != nil {
			return nil, fmt.Errorf("read default policy: %w", err)
		}
	}
	p, err := compiler.Compile(ctx, text)
	if err != nil {
		return nil, fmt.Errorf("default policy %s: %w", path, err)
	}
	return p, nil
}
