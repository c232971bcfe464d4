// SPDX-License-Identifier: Apache-2.0

// Package stories plays, from a copy of the clone and as docs/start.md prints it, what the four who need this project do first.
package stories

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

const (
	root = "../.."
	// most is how long a story may take by the clock once the programs are built, with the other stories beside it.
	most = 60 * time.Second
)

var update = flag.Bool("update", false, "print the outputs in docs/start.md and docs/admission.md anew")

// TestStories plays testdata/*.txtar. Their command "play PAGE SECTION [FOLDER]" runs the section's commands as a reader would.
func TestStories(t *testing.T) {
	clone := build(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", filepath.Join(clone, "bin")+":"+os.Getenv("PATH"))
			e.Setenv("HOME", os.Getenv("HOME"))
			for _, name := range []string{"GOPATH", "GOMODCACHE", "GOCACHE", "GOFLAGS", "GOPROXY", "GOTOOLCHAIN"} {
				if value := os.Getenv(name); value != "" {
					e.Setenv(name, value)
				}
			}
			e.Setenv("GOCACHE", output(t, "go", "env", "GOCACHE"))
			e.Setenv("GOMODCACHE", output(t, "go", "env", "GOMODCACHE"))
			return os.CopyFS(filepath.Join(e.WorkDir, "portcullis"), os.DirFS(clone))
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"play": play},
	})
}

// build copies the clone, what is not committed yet included, and builds the programs in it.
func build(t *testing.T) string {
	t.Helper()
	clone := filepath.Join(t.TempDir(), "portcullis")
	list := output(t, "git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	for name := range strings.SplitSeq(strings.TrimSuffix(list, "\x00"), "\x00") {
		from, to := filepath.Join(root, name), filepath.Join(clone, name)
		info, err := os.Stat(from)
		if err != nil || info.IsDir() || strings.HasPrefix(name, "rules/testdata/genuine") || strings.Contains(name, "/testdata/fuzz/") {
			continue // deleted, or nothing that a reader of these pages needs
		}
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, text, info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	for _, target := range []string{"build", "guest-binaries"} {
		if out, err := exec.Command("make", "-s", "-C", clone, target, "VERSION=story").CombinedOutput(); err != nil {
			t.Fatalf("make %s: %v\n%s", target, err, out)
		}
	}
	return clone
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// play runs the console blocks of a section of a page, in one shell's folder after another, and compares what is printed.
func play(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: play PAGE SECTION [FOLDER]")
	}
	file := filepath.Join(root, args[0])
	page, err := os.ReadFile(file)
	ts.Check(err)
	_, section, _, err := cut(string(page), args[1])
	ts.Check(err)
	dir := ts.MkAbs("portcullis")
	if len(args) > 2 {
		dir = filepath.Join(dir, args[2])
	}
	shell := &reader{dir: dir, path: ts.Getenv("PATH"), cache: ts.Getenv("GOCACHE"), modules: ts.Getenv("GOMODCACHE"), home: ts.Getenv("HOME")}
	began := time.Now()
	fresh, err := shell.play(section)
	ts.Check(err)
	took := time.Since(began)
	ts.Logf("%d commands in %v, %v of it processor time", shell.ran, took.Round(100*time.Millisecond), shell.took.Round(100*time.Millisecond))
	switch {
	case shell.ran == 0:
		ts.Fatalf("%s has no command under %q", args[0], args[1])
	case took > most:
		ts.Fatalf("took %v, more than %v", took, most)
	case *update:
		ts.Check(rewrite(file, args[1], fresh))
	case masked(fresh) != masked(section):
		ts.Fatalf("%s prints something else under %q; go test ./cmd/stories -update prints it anew. It is now:\n%s", args[0], args[1], fresh)
	}
}

// drawn is what follows from the bytes of the rules, and changes with every word of them.
var drawn = regexp.MustCompile(`[0-9a-f]{40,}|[A-Za-z0-9+/]{40,}=*|[0-9]+ bytes`)

func masked(text string) string { return drawn.ReplaceAllString(text, "…") }

// rewriting holds back stories that print the same page anew.
var rewriting sync.Mutex

// rewrite puts a section into a page.
func rewrite(file, heading, fresh string) error {
	rewriting.Lock()
	defer rewriting.Unlock()
	page, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, _, after, err := cut(string(page), heading)
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(before+fresh+after), 0o644)
}

// cut takes the section under a heading out of a page.
func cut(page, heading string) (before, section, after string, err error) {
	begin := strings.Index(page, "\n## "+heading+"\n")
	if begin < 0 {
		return "", "", "", fmt.Errorf("there is no section %q", heading)
	}
	end := strings.Index(page[begin+1:], "\n## ")
	if end < 0 {
		return page[:begin], page[begin:], "", nil
	}
	end += begin + 1
	return page[:begin], page[begin:end], page[end:], nil
}

// reader is somebody who types the commands of a page.
type reader struct {
	dir                        string
	path, cache, modules, home string
	ran                        int
	took                       time.Duration // processor time
}

// play runs the commands in the section's console blocks, and gives the section with what they print.
func (r *reader) play(section string) (string, error) {
	var out strings.Builder
	inside := false
	for line := range strings.Lines(section) {
		switch {
		case line == "```console\n":
			inside = true
		case strings.HasPrefix(line, "```"):
			inside = false
		case inside && strings.HasPrefix(line, "$ "):
			said, err := r.run(strings.TrimSpace(line[2:]))
			if err != nil {
				return "", err
			}
			line += said
		case inside:
			continue // what it printed before
		}
		out.WriteString(line)
	}
	return out.String(), nil
}

// run runs a command as a shell does that stays in its folder. A check that says no is no failure of the story.
func (r *reader) run(command string) (string, error) {
	r.ran++
	where, err := os.CreateTemp("", "story-")
	if err != nil {
		return "", err
	}
	where.Close()
	defer os.Remove(where.Name())
	shell := exec.Command("sh", "-c", command+"\ncode=$?; pwd >"+where.Name()+"; exit $code")
	shell.Dir = r.dir
	shell.Env = []string{"PATH=" + r.path, "HOME=" + r.home, "GOCACHE=" + r.cache, "GOMODCACHE=" + r.modules, "GOFLAGS=" + os.Getenv("GOFLAGS"), "GOPROXY=" + os.Getenv("GOPROXY"), "VERSION=story", "LC_ALL=C"}
	said, err := shell.CombinedOutput()
	if shell.ProcessState != nil {
		r.took += shell.ProcessState.UserTime() + shell.ProcessState.SystemTime()
	}
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() > 2) {
		return "", fmt.Errorf("%s: %w\n%s", command, err, said)
	}
	text, err := os.ReadFile(where.Name())
	if err != nil {
		return "", err
	}
	r.dir = strings.TrimSpace(string(text))
	return string(said), nil
}
