// SPDX-License-Identifier: Apache-2.0

package project_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

// A fork can be imported: `make rename` gives it a path of its own, everything in it builds, and a program outside that
// imports the agent's API and the gate starts, also when it links another protobuf package called grpc.
func TestARenamedCopyIsImportedByAProgramOutside(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a copy of the module")
	}
	dir := t.TempDir()
	module, stranger := filepath.Join(dir, "portcullis"), filepath.Join(dir, "stranger")
	copyTree(t, root, module)
	run(t, module, "make", "--no-print-directory", "rename", "MODULE=example.org/you/portcullis")
	if left := run(t, module, "go", "list", "-deps", "-test", "-f", `{{if not .Standard}}{{.ImportPath}}{{end}}`, "./..."); strings.Contains("\n"+left, "\nportcullis/") {
		t.Errorf("after the renaming the module still imports %s", left)
	}
	run(t, module, "go", "build", "./...")

	copyDir(t, filepath.Join("testdata", "stranger"), stranger)
	mod, err := os.ReadFile(filepath.Join(module, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(mod), "module example.org/you/portcullis", "module example.org/stranger", 1) +
		"\nrequire example.org/you/portcullis v0.0.0\n\nreplace example.org/you/portcullis => ../portcullis\n"
	if err := os.WriteFile(filepath.Join(stranger, "go.mod"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, stranger, "cp", "../portcullis/go.sum", ".")
	got := run(t, stranger, "go", "run", "-mod=mod", ".")
	if want := "grpc.CreateContainerRequest CreateContainerRequest grpc.CreateContainerRequest true\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRenameRefusesWhatIsNoPathOfAModule(t *testing.T) {
	for _, path := range []string{"", "portcullis", "example.org", "example.org/a b", "example.org/#", "../portcullis"} {
		out, err := exec.Command("../../.ci/rename", path).CombinedOutput()
		if code := exitCode(err); code != 2 || !strings.Contains(string(out), "example.org/you/portcullis") {
			t.Errorf("rename %q: exit code %d, %s", path, code, out)
		}
	}
}

// copyTree copies the files that git knows, and new ones that it does not ignore.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	list := run(t, from, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	for name := range strings.SplitSeq(strings.TrimSuffix(list, "\x00"), "\x00") {
		copyFile(t, filepath.Join(from, name), filepath.Join(to, name))
	}
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	info, err := os.Lstat(from)
	if err != nil {
		return // deleted in the work tree
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		t.Fatal(err)
	}
	if info.Mode()&os.ModeSymlink != 0 {
		target, err := os.Readlink(from)
		if err == nil {
			err = os.Symlink(target, to)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, content, info.Mode().Perm())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

func exitCode(err error) int {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}
