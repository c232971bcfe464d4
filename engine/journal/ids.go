// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"portcullis/internal/bounded"
)

// maxIDs bounds the container ids of a boot: half a MiB. A container that restarts every ten seconds needs a week for so many.
const maxIDs = 1 << 16

// idSize is what an id takes in memory and on disk, in bytes.
const idSize = 8

var (
	// ErrTaken says that the container id was used before in this boot.
	ErrTaken = errors.New("container id was used before in this boot and may not be used again")
	// ErrTooManyIDs says that no more containers can be distinguished in this boot.
	ErrTooManyIDs = fmt.Errorf("%d containers were created in this boot, and no more can be distinguished", maxIDs)
)

// ids are the container ids that were taken in this boot, each as the first 8 bytes of its SHA-256: two that collide cost the
// later one its creation, which nobody gains by.
type ids struct {
	path  string // "" keeps them in memory only
	taken []uint64
}

func fingerprint(id string) uint64 {
	sum := sha256.Sum256([]byte(id))
	return binary.BigEndian.Uint64(sum[:])
}

// Take makes a container id count as used for the rest of the boot, before the request that uses it is sent. It fails with
// ErrTaken, ErrTooManyIDs, or when the id cannot be written, and then the request must not be sent.
func (j *Journal) Take(id string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	print := fingerprint(id)
	switch {
	case slices.Contains(j.ids.taken, print):
		return ErrTaken
	case len(j.ids.taken) >= maxIDs:
		return ErrTooManyIDs
	}
	if err := j.ids.append(print); err != nil {
		return fmt.Errorf("write journal of container ids: %w", err)
	}
	return nil
}

// append adds an id to the file and then to memory.
func (i *ids) append(print uint64) error {
	taken := append(i.taken, print)
	if i.path != "" {
		if err := i.write(taken); err != nil {
			return err
		}
	}
	i.taken = taken
	return nil
}

// write adds the last of taken to the file, or all of them where the file is not what was written before. What a failed write has
// left behind is written over.
func (i *ids) write(taken []uint64) (err error) {
	f, err := os.OpenFile(i.path, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	from := len(taken) - 1
	if info.Size() < int64(from*idSize) {
		from = 0
	}
	raw := make([]byte, 0, idSize*(len(taken)-from))
	for _, print := range taken[from:] {
		raw = binary.BigEndian.AppendUint64(raw, print)
	}
	_, err = f.WriteAt(raw, int64(from*idSize))
	return err
}

// load reads what an earlier process of this boot has taken. Bytes after the last whole id are of one that was not used.
func (i *ids) load() error {
	raw, err := bounded.ReadRegular(i.path, maxIDs*idSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for ; len(raw) >= idSize; raw = raw[idSize:] {
		i.taken = append(i.taken, binary.BigEndian.Uint64(raw))
	}
	return nil
}

// idsPath names the file after the boot, as no record of its own says whose it is.
func idsPath(dir, bootID string) string {
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, fmt.Sprintf("ids-%016x", fingerprint(bootID)))
}
