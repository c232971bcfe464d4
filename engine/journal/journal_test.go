// SPDX-License-Identifier: Apache-2.0

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
		r.Ran, r.State = true, state(`{"pstate":{"a":1}}`)
		return nil
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
	if string(text) != "package agent_policy\n" {
		t.Errorf("text %q", text)
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
		"other version":  rewrite(`{"version":1,"boot_id":"boot-1"}`),
		"unknown field":  rewrite(`{"version":2,"boot_id":"boot-1","more":1}`),
		"policy missing": rewrite(`{"version":2,"boot_id":"boot-1","policy":"00"}`),
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

// An id is used once, whatever becomes of its container, and by whichever process of the boot.
func TestAnIDIsTakenOnceInABoot(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	if err := j.SetPolicy([]byte("x"), state(`{}`)); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"one", "two"} {
		if err := j.Take(id); err != nil {
			t.Fatal(err)
		}
		if err := j.Take(id); !errors.Is(err, journal.ErrTaken) {
			t.Errorf("%s again: %v", id, err)
		}
	}
	again := open(t, dir)
	if _, _, err := again.Load(); err != nil {
		t.Fatal(err)
	}
	if one, three := again.Take("one"), again.Take("three"); !errors.Is(one, journal.ErrTaken) || three != nil {
		t.Errorf("after a restart: one %v, three %v", one, three)
	}
	other, err := journal.Open(dir, "boot-2")
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Take("one"); err != nil {
		t.Errorf("in another boot: %v", err)
	}
}

// A disk without room neither lets an id through nor makes those before it forgotten.
func TestIDsOutliveADiskThatCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	j := open(t, dir)
	if err := errors.Join(j.SetPolicy([]byte("x"), state(`{}`)), j.Take("before")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := j.Take("without"); err == nil || errors.Is(err, journal.ErrTaken) {
		t.Errorf("an id that is not on disk was taken: %v", err)
	}
	if err := j.Take("before"); !errors.Is(err, journal.ErrTaken) {
		t.Errorf("an earlier one: %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.Take("without"), j.SetPolicy([]byte("x"), state(`{}`))); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir)
	if _, _, err := again.Load(); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"before", "without"} {
		if err := again.Take(id); !errors.Is(err, journal.ErrTaken) {
			t.Errorf("%s after a restart: %v", id, err)
		}
	}
}

// A container that restarts ten thousand times does not end its pod; a host that creates without end does get an end.
func TestIDsAreBounded(t *testing.T) {
	j := open(t, "")
	for i := range 1 << 16 {
		if err := j.Take(fmt.Sprint(i)); err != nil {
			t.Fatalf("id %d: %v", i, err)
		}
	}
	if err := j.Take("one more"); !errors.Is(err, journal.ErrTooManyIDs) {
		t.Errorf("got %v, want ErrTooManyIDs", err)
	}
	if err := j.Take("7"); !errors.Is(err, journal.ErrTaken) {
		t.Errorf("one of them: %v", err)
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
