// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"portcullis/images/cache"
)

const text = "content"

var sum = digest.FromString(text)

func open(t *testing.T) (*cache.Dir, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cache")
	d, err := cache.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, path
}

func read(t *testing.T, d *cache.Dir) (string, error) {
	t.Helper()
	f, err := d.Get(sum)
	if err != nil {
		return "", err
	}
	defer f.Close()
	raw, err := io.ReadAll(f)
	return string(raw), err
}

func entries(t *testing.T, path string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			names = append(names, filepath.Base(p))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestPutThenGetAndForTheOwnerOnly(t *testing.T) {
	d, path := open(t)
	if _, err := read(t, d); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty cache: %v", err)
	}
	if err := d.Put(sum, int64(len(text)), strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	if got, err := read(t, d); got != text || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	for name, want := range map[string]fs.FileMode{
		".": 0o700 | fs.ModeDir, "sha256": 0o700 | fs.ModeDir, "sha256/" + sum.Encoded(): 0o600,
	} {
		if info, err := os.Stat(filepath.Join(path, name)); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
}

func TestWrongContentIsNotStored(t *testing.T) {
	for name, put := range map[string]func(*cache.Dir) error{
		"other":    func(d *cache.Dir) error { return d.Put(sum, 0, strings.NewReader("something else")) },
		"short":    func(d *cache.Dir) error { return d.Put(sum, int64(len(text)), strings.NewReader(text[1:])) },
		"long":     func(d *cache.Dir) error { return d.Put(sum, int64(len(text)), strings.NewReader(text+"!")) },
		"failing":  func(d *cache.Dir) error { return d.Put(sum, 0, io.MultiReader(strings.NewReader(text), failing{})) },
		"escaping": func(d *cache.Dir) error { return d.Put("sha256:../../x", 0, strings.NewReader(text)) },
		"sha512": func(d *cache.Dir) error {
			return d.Put(digest.Digest("sha512:"+strings.Repeat("a", 128)), 0, strings.NewReader(text))
		},
	} {
		d, path := open(t)
		if put(d) == nil {
			t.Errorf("%s: stored", name)
		}
		if left := entries(t, path); len(left) != 0 {
			t.Errorf("%s: left %v behind", name, left)
		}
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("connection lost") }

func TestCorruptEntriesAreFetchedAgain(t *testing.T) {
	for name, corrupt := range map[string]func(string) error{
		"changed":   func(p string) error { return os.WriteFile(p, []byte("cOntent"), 0o600) },
		"truncated": func(p string) error { return os.Truncate(p, 3) },
		"empty":     func(p string) error { return os.Truncate(p, 0) },
		"extended":  func(p string) error { return os.WriteFile(p, []byte(text+"!"), 0o600) },
		"removed":   os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			d, path := open(t)
			fills := 0
			fetch := func() {
				f, err := d.Fetch(t.Context(), sum, func() error {
					fills++
					return d.Put(sum, 0, strings.NewReader(text))
				})
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if raw, err := io.ReadAll(f); string(raw) != text || err != nil {
					t.Errorf("got %q, %v", raw, err)
				}
			}
			fetch()
			fetch()
			if err := corrupt(filepath.Join(path, "sha256", sum.Encoded())); err != nil {
				t.Fatal(err)
			}
			fetch()
			if fills != 2 {
				t.Errorf("filled %d times, want once before and once after the damage", fills)
			}
		})
	}
}

func TestALinkInTheCacheDoesNotLeadOut(t *testing.T) {
	d, path := open(t)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(path, "sha256", sum.Encoded())); err != nil {
		t.Fatal(err)
	}
	if got, err := read(t, d); err == nil {
		t.Errorf("read %q through a link", got)
	}
}

func TestADirectoryThatOthersMayWriteToIsRefused(t *testing.T) {
	path := t.TempDir()
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := cache.Open(path); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("got %v", err)
	}
}

func TestConcurrentFetchesFillOnce(t *testing.T) {
	d, path := open(t)
	var fills atomic.Int32
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			f, err := d.Fetch(t.Context(), sum, func() error {
				fills.Add(1)
				return d.Put(sum, 0, strings.NewReader(text))
			})
			if err != nil {
				t.Error(err)
				return
			}
			f.Close()
		})
	}
	// Another process has its own Dir and no part in the claims.
	other, err := cache.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for range 8 {
		wg.Go(func() {
			if err := other.Put(sum, 0, strings.NewReader(text)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := fills.Load(); n > 1 {
		t.Errorf("filled %d times", n)
	}
	if left := entries(t, path); len(left) != 1 {
		t.Errorf("left %v", left)
	}
}

func TestAWaiterLeavesWhenItsContextEnds(t *testing.T) {
	d, _ := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := d.Fetch(t.Context(), sum, func() error {
		cancel()
		_, err := d.Fetch(ctx, sum, func() error { return errors.New("filled") })
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
