package journal_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"portcullis/engine"
	"portcullis/engine/journal"
)

func open(t *testing.T, dir string) *journal.Journal {
	t.Helper()
	j, err := journal.Open(dir, "boot-1")
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func state(text string) engine.State {
	return engine.State{Possible: []json.RawMessage{json.RawMessage(text)}}
}

func TestWhatWasWrittenIsReadBack(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	if err := j.SetPolicy([]byte("package agent_policy\n"), state(`{"pstate":{}}`)); err != nil {
		t.Fatal(err)
	}
	err := j.Update(func(r *journal.Record) error {
		r.Ran, r.Pending, r.State = true, "app", state(`{"pstate":{"a":1}}`)
		if err := r.Burn("two"); err != nil {
			return err
		}
		return r.Burn("one")
	})
	if err != nil {
		t.Fatal(err)
	}
	got, text, err := open(t, dir).Load()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(j.Record(), got); diff != "" {
		t.Errorf("record changed (-written +read):\n%s", diff)
	}
	if string(text) != "package agent_policy\n" || !got.IsBurnt("one") || !got.IsBurnt("two") || got.IsBurnt("three") {
		t.Errorf("text %q, burnt %q", text, got.Burnt)
	}
}

func TestReplacedPolicyIsForgotten(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	for i := range 3 {
		if err := j.SetPolicy([]byte(fmt.Sprintf("package agent_policy # %d", i)), state(`{"pstate":{}}`)); err != nil {
			t.Fatal(err)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 {
		t.Errorf("%v, %v: want the record and one policy", files, err)
	}
	if _, text, err := open(t, dir).Load(); err != nil || string(text) != "package agent_policy # 2" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestNoJournalOfThisBootIsNone(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := open(t, dir).Load(); !errors.Is(err, journal.ErrNone) {
		t.Errorf("empty directory: %v", err)
	}
	if err := open(t, dir).SetPolicy([]byte("x"), state(`{}`)); err != nil {
		t.Fatal(err)
	}
	other, err := journal.Open(dir, "boot-2")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := other.Load(); !errors.Is(err, journal.ErrNone) {
		t.Errorf("another boot's: %v", err)
	}
	memory := open(t, "")
	if err := memory.SetPolicy([]byte("x"), state(`{}`)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := memory.Load(); !errors.Is(err, journal.ErrNone) {
		t.Errorf("in memory: %v", err)
	}
}

// What cannot be trusted to be whole is an error, never an empty journal.
func TestDamagedJournalIsAnError(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"cut off":        func(dir string) error { return os.Truncate(filepath.Join(dir, "journal.json"), 20) },
		"empty":          func(dir string) error { return os.Truncate(filepath.Join(dir, "journal.json"), 0) },
		"other version":  rewrite(`{"version":2,"boot_id":"boot-1"}`),
		"unknown field":  rewrite(`{"version":1,"boot_id":"boot-1","more":1}`),
		"unsorted":       rewrite(`{"version":1,"boot_id":"boot-1","burnt":["b","a"]}`),
		"policy missing": rewrite(`{"version":1,"boot_id":"boot-1","policy":"00"}`),
		"policy changed": func(dir string) error {
			files, err := filepath.Glob(filepath.Join(dir, "policy-*"))
			if err != nil {
				return err
			}
			return os.WriteFile(files[0], []byte("package other"), 0o600)
		},
		"record is a link": func(dir string) error {
			path := filepath.Join(dir, "journal.json")
			return errors.Join(os.Rename(path, path+".x"), os.Symlink(path+".x", path))
		},
		"record is a directory": func(dir string) error {
			path := filepath.Join(dir, "journal.json")
			return errors.Join(os.Remove(path), os.Mkdir(path, 0o700))
		},
		"record is a pipe": func(dir string) error {
			path := filepath.Join(dir, "journal.json")
			return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := open(t, dir).SetPolicy([]byte("package agent_policy"), state(`{}`)); err != nil {
				t.Fatal(err)
			}
			if err := damage(dir); err != nil {
				t.Fatal(err)
			}
			if _, _, err := open(t, dir).Load(); !errors.Is(err, journal.ErrCorrupt) {
				t.Errorf("got %v, want ErrCorrupt", err)
			}
		})
	}
}

func rewrite(text string) func(dir string) error {
	return func(dir string) error { return os.WriteFile(filepath.Join(dir, "journal.json"), []byte(text), 0o600) }
}

func TestChangeThatCannotBeWrittenDoesNotCount(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	if err := j.SetPolicy([]byte("package agent_policy"), state(`{}`)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := j.Update(func(r *journal.Record) error { r.Ran = true; return nil }); err == nil {
		t.Error("no error")
	}
	if j.Record().Ran {
		t.Error("the change counts")
	}
	refused := errors.New("refused")
	if err := j.Update(func(r *journal.Record) error { r.Ran = true; return refused }); !errors.Is(err, refused) || j.Record().Ran {
		t.Errorf("%v", err)
	}
}

func TestBurntIDsAreBounded(t *testing.T) {
	var r journal.Record
	for i := range 4096 {
		if err := r.Burn(fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Burn("1"); err != nil {
		t.Errorf("one that is there already: %v", err)
	}
	if err := r.Burn("one more"); !errors.Is(err, journal.ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
}

func TestFilesAreRootsAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if err := open(t, dir).SetPolicy([]byte("x"), state(`{}`)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "journal.json"): 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v (%v)", path, info.Mode().Perm(), want, err)
		}
	}
}
