// SPDX-License-Identifier: Apache-2.0

package initdata_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/hostdata"
	"portcullis/hostdata/initdata"
)

var configured = map[string]string{
	initdata.AAKey:     "[token_configs]\n",
	initdata.CDHKey:    "credentials = []\n",
	initdata.PolicyKey: "package agent_policy\n",
	"../escape":        "never written",
}

func newDocument(t *testing.T, data map[string]string) *initdata.Document {
	t.Helper()
	doc, err := initdata.New(initdata.SHA256, data)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func wantCopy(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, initdata.ErrCopy) || hostdata.Reason(err) != "initdata-locked" {
		t.Errorf("error %v", err)
	}
}

func TestInstall(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "confidential-containers", "initdata")
	doc := newDocument(t, configured)
	for range 2 { // a restart finds what it wrote
		if err := doc.Install(dir); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Fatalf("entries %v, %v", entries, err)
	}
	for _, name := range []string{initdata.AAKey, initdata.CDHKey} {
		path := filepath.Join(dir, name)
		if got := readFile(t, path); string(got) != configured[name] {
			t.Errorf("%s is %q", name, got)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "../escape")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a key was used as a path")
	}
	if err := doc.CheckCopies(dir, filepath.Join(parent, "none")); err != nil {
		t.Error(err)
	}
}

func TestInstallClosesADirectoryThatIsOpen(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := newDocument(t, configured).Install(dir); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
}

func TestInstallRefuses(t *testing.T) {
	tests := map[string]func(t *testing.T, dir string){
		"another aa.toml":        func(t *testing.T, dir string) { write(t, filepath.Join(dir, initdata.AAKey), "[evil]\n") },
		"longer cdh.toml":        func(t *testing.T, dir string) { write(t, filepath.Join(dir, initdata.CDHKey), "credentials = []\n\n") },
		"empty aa.toml":          func(t *testing.T, dir string) { write(t, filepath.Join(dir, initdata.AAKey), "") },
		"another initdata.toml":  func(t *testing.T, dir string) { write(t, filepath.Join(dir, "initdata.toml"), "x") },
		"another policy.rego":    func(t *testing.T, dir string) { write(t, filepath.Join(dir, initdata.PolicyKey), "package a\n") },
		"directory in its place": func(t *testing.T, dir string) { mkdir(t, filepath.Join(dir, initdata.AAKey)) },
		"dangling symbolic link": func(t *testing.T, dir string) { symlink(t, "none", filepath.Join(dir, initdata.AAKey)) },
		"link to the right bytes": func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "x"), configured[initdata.AAKey])
			symlink(t, "x", filepath.Join(dir, initdata.AAKey))
		},
	}
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			prepare(t, dir)
			before, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			wantCopy(t, newDocument(t, configured).Install(dir))
			for _, entry := range before {
				if info, err := os.Lstat(filepath.Join(dir, entry.Name())); err != nil || info.Mode().Type() != entry.Type() {
					t.Errorf("%s was replaced: %v", entry.Name(), err)
				}
			}
		})
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func TestInstallRefusesADirectoryThatIsALink(t *testing.T) {
	parent := t.TempDir()
	mkdir(t, filepath.Join(parent, "elsewhere"))
	dir := filepath.Join(parent, "initdata")
	symlink(t, "elsewhere", dir)
	if err := os.Chmod(filepath.Join(parent, "elsewhere"), 0o755); err != nil {
		t.Fatal(err)
	}
	// As the directory itself, and on the way to it.
	for _, path := range []string{dir, filepath.Join(dir, "initdata")} {
		if err := newDocument(t, configured).Install(path); err == nil || !strings.Contains(err.Error(), "is not a directory") {
			t.Errorf("Install into %s: %v", path, err)
		}
	}
	if entries, _ := os.ReadDir(filepath.Join(parent, "elsewhere")); len(entries) > 0 {
		t.Errorf("wrote %v through the link", entries)
	}
	if info, err := os.Stat(filepath.Join(parent, "elsewhere")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the link's target was changed: %v, %v", info.Mode(), err)
	}
}

// A file that the document says nothing of was not bound by anybody.
func TestCopyOfWhatWasNotBoundDiffers(t *testing.T) {
	dir := t.TempDir()
	doc := newDocument(t, map[string]string{initdata.PolicyKey: "package agent_policy\n"})
	if err := doc.Install(dir); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, initdata.AAKey), "")
	wantCopy(t, doc.CheckCopies(dir))
	wantCopy(t, doc.Install(dir))
}

func TestCheckCopies(t *testing.T) {
	doc := newDocument(t, configured)
	dir := t.TempDir()
	if err := doc.Install(dir); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "initdata.toml"), string(doc.Bytes()))
	write(t, filepath.Join(dir, initdata.PolicyKey), configured[initdata.PolicyKey])
	if err := doc.CheckCopies(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{initdata.AAKey, initdata.CDHKey, initdata.PolicyKey, "initdata.toml"} {
		path := filepath.Join(dir, name)
		text := readFile(t, path)
		for _, changed := range [][]byte{with(text, 0), with(text, len(text)-1), append(bytes.Clone(text), '\n'), text[:len(text)-1], {}} {
			write(t, path, string(changed))
			wantCopy(t, doc.CheckCopies(t.TempDir(), dir))
		}
		write(t, path, string(text))
	}
	write(t, filepath.Join(dir, initdata.AAKey), string(make([]byte, initdata.MaxDocument+1)))
	wantCopy(t, doc.CheckCopies(dir))
}

func TestCheckCopiesErrorIsNotAbsence(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, "")
	if err := newDocument(t, configured).CheckCopies(path); !errors.Is(err, initdata.ErrRead) {
		t.Errorf("error %v", err)
	}
}

func TestReadFile(t *testing.T) {
	doc := newDocument(t, configured)
	annotation, err := doc.Annotation()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "initdata")
	for name, text := range map[string]string{"TOML": string(doc.Bytes()), "annotation": annotation, "annotation and line end": annotation + "\n"} {
		write(t, path, text)
		got, err := initdata.ReadFile(path)
		if err != nil || !bytes.Equal(got.Digest(), doc.Digest()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string]string{"empty": "", "two line ends": annotation + "\n\n", "TOML with a mark": "\ufeff" + string(doc.Bytes())} {
		write(t, path, text)
		if _, err := initdata.ReadFile(path); !errors.Is(err, initdata.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	link := path + "-link"
	symlink(t, path, link)
	write(t, path, string(make([]byte, initdata.MaxDocument+1)))
	for _, path := range []string{path, link, filepath.Dir(path), path + "-none"} {
		if _, err := initdata.ReadFile(path); !errors.Is(err, initdata.ErrRead) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
