// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"

	"portcullis/engine"
	"portcullis/internal/bounded"
	"portcullis/rules"
)

// loadEngine compiles the policy file at path and starts an engine on it. What is wrong with the file is the user's mistake.
func loadEngine(ctx context.Context, path string, opts engine.Options) (*engine.Engine, error) {
	p, err := loadPolicy(ctx, path)
	if err != nil {
		return nil, err
	}
	return engine.New(p, opts), nil
}

func loadPolicy(ctx context.Context, path string) (*engine.Policy, error) {
	if path == "" {
		return nil, usageError(errors.New("--policy is required"))
	}
	text, err := bounded.ReadFile(path, engine.MaxText)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	compiler, err := engine.NewCompiler(engine.CompilerOptions{HeldRules: rules.Held()})
	if err != nil {
		return nil, err
	}
	p, err := compiler.Compile(ctx, text)
	if err != nil && !hasPackage.Match(text) {
		return nil, fmt.Errorf("%s is no policy: it does not begin with a package; genpolicy -r prints the policy of a manifest", path)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// hasPackage finds what every Rego text has.
var hasPackage = regexp.MustCompile(`(?m)^[ \t]*package[ \t]`)

// openInput opens the FILE argument of a verb, or stdin when there is none or it is "-".
func openInput(args []string, stdin io.Reader) (io.ReadCloser, error) {
	if len(args) == 0 && isTerminal(stdin) {
		return nil, usageError(errors.New("FILE is missing; \"-\" reads from the terminal"))
	}
	if len(args) == 0 || args[0] == "-" {
		return io.NopCloser(stdin), nil
	}
	return os.Open(args[0])
}
