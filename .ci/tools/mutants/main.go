// SPDX-License-Identifier: Apache-2.0

// Mutants takes defences away, one at a time, and demands that a named test notices.
//
//	go -C .ci/tools run ./mutants [-third N | -run PATTERN] [-list FILE]
//
// Each mutant is a change of a few lines of one file. The go command reads the changed file in the place of the real one
// (-overlay), builds the test of one package with it, and runs the one test that is named. What the go command does not read, such
// as a unit or a script, is changed in a copy of the project's files, and the test runs there. A mutant fails the run
// when its lines are not found exactly once, when it does not compile, when the test passes, or when another one fails.
//
// The list has blocks such as
//
//	== name-of-the-mutant
//	file: engine/gate/gate.go
//	test: ./engine/gate TestName
//	-	if !allowed {
//	+	if false {
//
// with the lines that are replaced behind "-" and what replaces them behind "+", as often as needed; a line that begins with
// "#" is a comment. The test may name a subtest, as go test -run does.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// deadline bounds the build and run of one mutant: one that hangs its test is caught by the test's own -timeout.
const (
	deadline    = 10 * time.Minute
	testTimeout = 3 * time.Minute
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("mutants", flag.ContinueOnError)
	flags.SetOutput(stderr)
	root := flags.String("root", filepath.Join("..", ".."), "the project's `directory`")
	list := flags.String("list", filepath.Join("..", "mutants.txt"), "the `file` of mutants")
	third := flags.String("third", "", "try a third of the mutants, chosen by this `text`, such as a commit")
	pattern := flags.String("run", "", "try only mutants whose name matches this `pattern`")
	check := flags.Bool("check", false, "only look whether the lines of each mutant are there")
	parallel := flags.Int("parallel", 2, "mutants at a time")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	all, err := read(*list)
	if err != nil {
		fmt.Fprintln(stderr, "mutants:", err)
		return 2
	}
	chosen, err := choose(all, *third, *pattern)
	if err != nil {
		fmt.Fprintln(stderr, "mutants:", err)
		return 2
	}
	if *check {
		return checkAll(all, *root, stderr)
	}
	t := tester{root: *root, out: stdout}
	if t.dir, err = os.MkdirTemp("", "mutants-"); err != nil {
		fmt.Fprintln(stderr, "mutants:", err)
		return 2
	}
	defer os.RemoveAll(t.dir)
	failed := t.all(chosen, *parallel)
	fmt.Fprintf(stdout, "%d mutants of %d tried, %d caught, %d not\n", len(chosen), len(all), len(chosen)-failed, failed)
	if failed > 0 {
		return 1
	}
	return 0
}

// checkAll says which mutants the code has moved away from.
func checkAll(all []mutant, root string, stderr io.Writer) (code int) {
	for _, m := range all {
		if _, err := m.changed(root); err != nil {
			fmt.Fprintf(stderr, "mutant %s: %v\n", m.name, err)
			code = 1
		}
	}
	return code
}

// choose returns the mutants that this run tries, in their order.
func choose(all []mutant, third, pattern string) ([]mutant, error) {
	name, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	part := -1
	if third != "" {
		h := fnv.New32a()
		io.WriteString(h, third)
		part = int(h.Sum32() % 3)
	}
	var chosen []mutant
	for i, m := range all {
		if (part < 0 || i%3 == part) && name.MatchString(m.name) {
			chosen = append(chosen, m)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no mutant matches %q", pattern)
	}
	return chosen, nil
}

// tester tries mutants of the tree at root, with files of its own in dir.
type tester struct {
	root, dir string
	mu        sync.Mutex
	out       io.Writer
}

// all tries mutants side by side and returns how many were not caught.
func (t *tester) all(mutants []mutant, parallel int) (failed int) {
	var wg sync.WaitGroup
	places := make(chan struct{}, parallel)
	for _, m := range mutants {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			start := time.Now()
			err := t.try(m)
			t.mu.Lock()
			defer t.mu.Unlock()
			if err != nil {
				failed++
				fmt.Fprintf(t.out, "NOT CAUGHT %s (%s): %v\n", m.name, m.file, err)
				return
			}
			fmt.Fprintf(t.out, "caught %s by %s (%.1f s)\n", m.name, m.test, time.Since(start).Seconds())
		})
	}
	wg.Wait()
	return failed
}

// try returns nil when the mutant's test fails with it.
func (t *tester) try(m mutant) error {
	if !m.built() {
		dir, err := t.copied(m)
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		return t.test(m, dir, os.Environ())
	}
	overlay, err := t.overlay(m)
	if err != nil {
		return err
	}
	// Programs that the test builds, such as the daemon, have the mutant too.
	return t.test(m, t.root, append(os.Environ(), "GOFLAGS="+strings.TrimSpace(goflags()+" -overlay="+overlay)))
}

// test runs the mutant's test in dir and returns nil when it fails.
func (t *tester) test(m mutant, dir string, env []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	args := []string{"test", "-vet=off", "-count=1", "-timeout", testTimeout.String(), "-run", m.pattern(), m.pkg}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = dir, env
	out, err := cmd.CombinedOutput()
	switch {
	case bytes.Contains(out, []byte("[build failed]")), bytes.Contains(out, []byte("[setup failed]")):
		return fmt.Errorf("it does not compile:\n%s", tail(out))
	case err == nil && bytes.Contains(out, []byte("no tests to run")):
		return fmt.Errorf("there is no test %s in %s", m.test, m.pkg)
	case err == nil && bytes.Contains(out, []byte("--- SKIP")):
		return fmt.Errorf("%s was skipped", m.test)
	case err == nil:
		return fmt.Errorf("%s passes", m.test)
	case !bytes.Contains(out, []byte("--- FAIL: "+m.top())) && !bytes.Contains(out, []byte("panic: ")):
		return fmt.Errorf("something else failed:\n%s", tail(out))
	}
	return nil
}

// goflags are those that the go command would use.
func goflags() string {
	out, err := exec.Command("go", "env", "GOFLAGS").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// overlay writes the changed file, and the file that tells the go command of it.
func (t *tester) overlay(m mutant) (string, error) {
	path, err := filepath.Abs(filepath.Join(t.root, m.file))
	if err != nil {
		return "", err
	}
	changed, err := m.changed(t.root)
	if err != nil {
		return "", err
	}
	replaced := filepath.Join(t.dir, m.name+filepath.Ext(m.file))
	table, err := json.Marshal(map[string]any{"Replace": map[string]string{path: replaced}})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(t.dir, m.name+".json")
	if err := os.WriteFile(replaced, []byte(changed), 0o600); err != nil {
		return "", err
	}
	return overlay, os.WriteFile(overlay, table, 0o600)
}

// copied makes a copy of the files that git knows, with the mutant's change.
func (t *tester) copied(m mutant) (string, error) {
	out, err := exec.Command("git", "-C", t.root, "ls-files", "-z").Output()
	if err != nil {
		return "", fmt.Errorf("list the project's files: %w", err)
	}
	dir := filepath.Join(t.dir, m.name)
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		if err := copyFile(filepath.Join(t.root, name), filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	changed, err := m.changed(dir)
	if err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, m.file), []byte(changed), 0) // its mode stays
}

// copyFile copies a file or a link. One that git knows and that is not there is passed over.
func copyFile(from, to string) error {
	info, err := os.Lstat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o755)
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, info.Mode().Perm())
}

// tail is the end of a long output.
func tail(out []byte) []byte { return out[max(0, len(out)-2000):] }
