package main

import (
	"context"
	"log/slog"

	"portcullis/engine/binding"
)

// bind finds out what this guest can be bound to.
func bind(_ context.Context, c config, _ string, logger *slog.Logger) binding.Config {
	return binding.Config{Open: c.Binding.Mode != "required", Alg: c.Binding.Alg, Log: logger}
}
