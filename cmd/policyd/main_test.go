package main

import (
	"context"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
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
