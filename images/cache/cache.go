// SPDX-License-Identifier: Apache-2.0

// Package cache keeps content in a directory, named by its digest.
//
// The directory holds sha256/<64 hex digits> and, while one is being written, tmp-<random>. It is not trusted: an entry is
// hashed each time it is opened, and one that is not what its name says is removed as if it had never been there. So a
// cache that somebody else wrote to can cost time, but not change an answer. Entries are never evicted; remove the
// directory to empty it. Any number of goroutines and processes may use one directory at once.
package cache

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"

	"github.com/opencontainers/go-digest"

	"portcullis/internal/wait"
)

// Dir is an open cache directory.
type Dir struct {
	root *os.Root

	mu   sync.Mutex               // guards busy
	busy map[digest.Digest]*claim // digests that somebody in this process is fetching
}

// claim is held by whoever puts a token into it.
type claim struct {
	token   chan struct{}
	holders int // goroutines that hold it or wait for it
}

// ErrSize says that content is longer than it was said to be.
var ErrSize = errors.New("content is longer than stated")

// Open opens the cache at dir and creates it, for its owner alone, when it is not there. A directory that others may
// write to is refused.
func Open(dir string) (*Dir, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening cache: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening cache: %w", err)
	}
	info, err := root.Stat(".")
	if err == nil && info.Mode().Perm()&0o022 != 0 {
		err = fmt.Errorf("%s may be written to by others (%v); run chmod 700 on it", dir, info.Mode().Perm())
	}
	if err == nil {
		err = root.MkdirAll("sha256", 0o700)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening cache: %w", err), root.Close())
	}
	return &Dir{root: root, busy: map[digest.Digest]*claim{}}, nil
}

// Close releases the directory; open entries stay readable.
func (d *Dir) Close() error { return d.root.Close() }

func entryName(sum digest.Digest) (string, error) {
	if err := sum.Validate(); err != nil || sum.Algorithm() != digest.SHA256 {
		return "", fmt.Errorf("cache: %q is not a sha256 digest", sum)
	}
	return path.Join("sha256", sum.Encoded()), nil
}

// Get opens the entry sum, positioned at its start. An entry that is absent, or was corrupt and has just been removed,
// is an error wrapping fs.ErrNotExist.
func (d *Dir) Get(sum digest.Digest) (*os.File, error) {
	name, err := entryName(sum)
	if err != nil {
		return nil, err
	}
	f, err := d.root.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	if err == nil && hex.EncodeToString(h.Sum(nil)) != sum.Encoded() {
		err = errors.Join(fmt.Errorf("entry %s was corrupt: %w", sum, fs.ErrNotExist), d.root.Remove(name))
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cache: %w", err), f.Close())
	}
	return f, nil
}

// Put stores what r holds as sum. It stores nothing unless the content has that digest and, when size is above 0, is
// that long.
func (d *Dir) Put(sum digest.Digest, size int64, r io.Reader) (err error) {
	name, err := entryName(sum)
	if err != nil {
		return err
	}
	tmp := "tmp-" + rand.Text()
	f, err := d.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.root.Remove(tmp))
		}
	}()
	h := sha256.New()
	if size > 0 {
		r = io.LimitReader(r, size+1)
	}
	n, err := io.Copy(io.MultiWriter(f, h), r)
	if err == nil && size > 0 && n > size {
		err = fmt.Errorf("%w: %d bytes", ErrSize, size)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("storing %s: %w", sum, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sum.Encoded() {
		return fmt.Errorf("storing %s: content has digest sha256:%s (%d bytes)", sum, got, n)
	}
	if err = d.root.Rename(tmp, name); err != nil {
		return fmt.Errorf("storing %s: %w", sum, err)
	}
	return nil
}

// Fetch opens the entry sum and, when the cache does not hold it, has fill put it there first. Goroutines that want the
// same entry wait for the one that fetches it, or for ctx.
func (d *Dir) Fetch(ctx context.Context, sum digest.Digest, fill func() error) (*os.File, error) {
	release, err := d.claim(ctx, sum)
	if err != nil {
		return nil, err
	}
	defer release()
	f, err := d.Get(sum)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err := fill(); err != nil {
		return nil, err
	}
	return d.Get(sum)
}

// claim makes the caller the only one in this process to fetch sum, until it calls release.
func (d *Dir) claim(ctx context.Context, sum digest.Digest) (release func(), err error) {
	d.mu.Lock()
	c := d.busy[sum]
	if c == nil {
		c = &claim{token: make(chan struct{}, 1)}
		d.busy[sum] = c
	}
	c.holders++
	d.mu.Unlock()

	leave := func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if c.holders--; c.holders == 0 {
			delete(d.busy, sum)
		}
	}
	if err := wait.Acquire(ctx, c.token); err != nil {
		leave()
		return nil, err
	}
	return func() { <-c.token; leave() }, nil
}
