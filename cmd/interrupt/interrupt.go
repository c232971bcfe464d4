// SPDX-License-Identifier: Apache-2.0

// Package interrupt ends a program as people expect when they press Ctrl-C: soon, and with the exit code of that signal.
package interrupt

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// grace is how long a program has to put its files in order: a read from a terminal never notices that it is to end.
const grace = 500 * time.Millisecond

// Exit runs a program with a context that ends with SIGINT or SIGTERM, and exits: with the program's code, or 128 and the signal's
// number (130 for Ctrl-C) when a signal ended it.
func Exit(program func(context.Context) int) {
	ctx, cancel := context.WithCancel(context.Background())
	came := make(chan os.Signal, 1)
	signal.Notify(came, os.Interrupt, syscall.SIGTERM)
	done := make(chan int, 1)
	go func() { done <- program(ctx) }()
	select {
	case code := <-done:
		cancel()
		os.Exit(code)
	case got := <-came:
		signal.Stop(came) // a second one ends it at once
		cancel()
		select {
		case <-done:
		case <-time.After(grace):
		}
		os.Exit(128 + number(got))
	}
}

func number(s os.Signal) int {
	if n, ok := s.(syscall.Signal); ok {
		return int(n)
	}
	return int(syscall.SIGINT)
}
