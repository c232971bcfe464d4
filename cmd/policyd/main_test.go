// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"slices"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && slices.Contains([]string{agentProgram, proxyProgram, hostileProgram}, os.Args[1]) {
		os.Exit(serveProgram(os.Args[1:]))
	}
	testscript.Main(tidy{m}, map[string]func(){
		"policyd": func() {
			os.Exit(run(context.Background(), os.Args[1:], stdio{os.Stdout, os.Stderr}))
		},
		"opa": func() {
			os.Exit(program("/usr/bin/opa")(context.Background(), os.Args[1:], stdio{os.Stdout, os.Stderr}))
		},
	})
}

func TestCommandLine(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}

// tidy removes what the tests have built, which is too large to be left behind.
type tidy struct{ tests *testing.M }

func (m tidy) Run() int {
	defer func() {
		for _, dir := range built {
			_ = os.RemoveAll(dir)
		}
	}()
	return m.tests.Run()
}
