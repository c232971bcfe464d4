// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"portcullis/internal/bounded"
)

// maxFile bounds a file that is watched, in bytes.
const maxFile = 1 << 20

// lookEvery is how often files are looked at, at most: a renewed one counts no later.
const lookEvery = time.Second

// renewed is what files hold, read again when they change. Files are compared by content: a mounted Secret changes by its links
// alone. What cannot be read does not take the place of what could: the last one is kept, and the log says so.
type renewed[T any] struct {
	what  string
	paths []string
	load  func(texts [][]byte) (T, error)
	log   *slog.Logger

	mu     sync.Mutex
	looked time.Time
	digest [sha256.Size]byte
	value  T
}

// newRenewed reads the files for the first time, when they have to be right.
func newRenewed[T any](what string, paths []string, log *slog.Logger, load func(texts [][]byte) (T, error)) (*renewed[T], error) {
	r := &renewed[T]{what: what, paths: paths, load: load, log: log}
	r.mu.Lock()
	defer r.mu.Unlock()
	texts, digest, err := r.read()
	if err != nil {
		return nil, err
	}
	if r.value, err = load(texts); err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	r.digest, r.looked = digest, time.Now()
	return r, nil
}

// get is what the files hold now.
func (r *renewed[T]) get() T {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.looked) < lookEvery {
		return r.value
	}
	r.looked = time.Now()
	texts, digest, err := r.read()
	if err != nil {
		r.log.Error("cannot read "+r.what+", keeping the last", "error", err)
		return r.value
	}
	if digest == r.digest {
		return r.value
	}
	value, err := r.load(texts)
	if err != nil { // such as a certificate whose key is not written yet
		r.log.Error("cannot take "+r.what+", keeping the last", "error", err)
		return r.value
	}
	r.value, r.digest = value, digest
	r.log.Info("took new " + r.what)
	return r.value
}

func (r *renewed[T]) read() (texts [][]byte, digest [sha256.Size]byte, err error) {
	h := sha256.New()
	for _, path := range r.paths {
		text, err := bounded.ReadFile(path, maxFile)
		if err != nil {
			return nil, digest, fmt.Errorf("read %s: %w", r.what, err)
		}
		fmt.Fprintf(h, "%d\n%s", len(text), text)
		texts = append(texts, text)
	}
	return texts, [sha256.Size]byte(h.Sum(nil)), nil
}
