// SPDX-License-Identifier: Apache-2.0

// Package bounded reads no more than a limit: what somebody else wrote or sends is of any length until it is read.
package bounded

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

var (
	// ErrTooLong says that there is more to read than the limit allows.
	ErrTooLong = errors.New("too long")
	// ErrNotRegular says that a path leads to something else than a file: a directory, a link, a pipe, a device.
	ErrNotRegular = errors.New("not a regular file")
)

// ReadAll reads r to its end, which has to come within limit bytes.
func ReadAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLong, limit)
	}
	return data, nil
}

// ReadFile reads what path leads to, of at most limit bytes. Links are followed, and pipes are read, as a user of a command
// line expects.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return readClose(f, limit)
}

// ReadRegular reads a regular file of at most limit bytes. It follows no link in path's last element and waits for no pipe.
func ReadRegular(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%s: %w", path, ErrNotRegular)
	}
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		if err == nil {
			err = fmt.Errorf("%s: %w", path, ErrNotRegular)
		}
		return nil, errors.Join(err, f.Close())
	}
	return readClose(f, limit)
}

func readClose(f *os.File, limit int64) ([]byte, error) {
	defer f.Close()
	data, err := ReadAll(f, limit)
	if errors.Is(err, ErrTooLong) {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return data, err
}
