// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// mount is a file system that policyd needs. The agent mounts the same when it is PID 1, but leaves a directory alone that has
// a file system of the same type: /run has to be a tmpfs here, or it would hide policyd's sockets under one of its own.
type mount struct {
	kind, path string
	flags      uintptr
	options    string
}

// mounts are in the order in which they are made: /proc says what is mounted.
var mounts = []mount{
	{"proc", "/proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"sysfs", "/sys", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"devtmpfs", "/dev", unix.MS_NOSUID, "mode=0755"},
	{"tmpfs", "/run", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
}

func mountAll() error {
	for _, m := range mounts {
		if err := m.make(); err != nil {
			return fmt.Errorf("mount %s: %w", m.path, err)
		}
	}
	return nil
}

func (m mount) make() error {
	there, err := m.isThere()
	if err != nil || there {
		return err
	}
	if err := os.Mkdir(m.path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.EROFS) {
		return err
	}
	return unix.Mount(m.kind, m.path, m.kind, m.flags, m.options)
}

// isThere reports whether a file system of this type is mounted. Before /proc is, nothing is known to be.
func (m mount) isThere() (bool, error) {
	f, err := os.Open("/proc/mounts")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	found := false
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) >= 3 && fields[1] == m.path {
			found = fields[2] == m.kind // the last one is on top
		}
	}
	return found, lines.Err()
}
