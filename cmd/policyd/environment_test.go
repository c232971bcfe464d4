// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portcullis/internal/hostdatatest"
)

func TestFlagsOfLibrariesAreNone(t *testing.T) {
	flag.Bool("of-a-library", false, "as packages register them in the global set")
	if _, err := parseFlags([]string{"--of-a-library"}); err == nil {
		t.Error("a flag of the global set is taken")
	}
}

// The test binary runs itself twice and keeps what each process asks of the environment, as the go command does for its cache
// of tests: what policyd asks for is what the second one asks for beside the first.
func TestNothingIsReadFromTheEnvironment(t *testing.T) {
	if mode := flag.Arg(0); mode != "" {
		asProgram(t, mode == "serve")
		return
	}
	allowed := environment(t, "make")
	allowed["NOTIFY_SOCKET"] = true // of systemd, which starts policyd
	for name := range environment(t, "serve") {
		if !allowed[name] {
			t.Errorf("policyd reads %s of the environment", name)
		}
	}
}

// environment returns the names of the variables that a process of the test asks for.
func environment(t *testing.T, mode string) map[string]bool {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	cmd := exec.Command(os.Args[0], "-test.run=^TestNothingIsReadFromTheEnvironment$", "-test.testlogfile="+log, mode)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "getenv "); ok {
			names[name] = true
		}
	}
	return names
}

// asProgram makes a guest and, if asked to, runs policyd in it from its flags to its end.
func asProgram(t *testing.T, serves bool) {
	m := newMachine(t, hostdatatest.Guest{})
	m.write("config.toml", "[binding]\nmode = \"auto\"\n")
	if !serves {
		return
	}
	o, err := parseFlags([]string{"--config", m.path("config.toml"), "--listen", "unix://" + m.path("gate.sock")})
	if err != nil {
		t.Fatal(err)
	}
	c, err := o.configuration()
	if err != nil {
		t.Fatal(err)
	}
	c.Gate.Agent, c.Policy.Default, c.Log.Events = m.conf.Gate.Agent, m.conf.Policy.Default, m.conf.Log.Events
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Lstat(m.path("gate.sock")); err == nil {
				cancel()
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	if err := serve(ctx, c, m.guest, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
}
