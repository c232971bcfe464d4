// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"portcullis/engine"
	"portcullis/internal/bounded"
	"portcullis/rules"
)

// builtIn decides where no default policy is configured.
const builtIn = "deny-all-but-setpolicy"

// defaultPolicy compiles the policy that decides until SetPolicy: the file at path, or the built-in one if path is empty.
func defaultPolicy(ctx context.Context, compiler *engine.Compiler, path string) (*engine.Policy, error) {
	read := func() ([]byte, error) { return bounded.ReadFile(path, engine.MaxText) }
	if path == "" {
		read = func() ([]byte, error) {
			text, err := rules.Default(builtIn)
			return []byte(text), err
		}
	}
	text, err := read()
	if err != nil {
		return nil, fmt.Errorf("read default policy: %w", err)
	}
	p, err := compiler.Compile(ctx, text)
	if err != nil {
		return nil, fmt.Errorf("default policy %s: %w", path, err)
	}
	return p, nil
}
